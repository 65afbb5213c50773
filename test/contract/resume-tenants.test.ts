/** What may be read again is its tenant's alone: keys of idempotency, and generations by their ids. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { eventually } from "../support/eventually.ts";
import { hear, nothingHeard, StreamScene, wholeText } from "../support/stream-scene.ts";

let scene: StreamScene;
beforeAll(async () => {
  const api_keys = ["one:key-of-the-first-tenant", "two:key-of-the-other-tenant"];
  scene = await StreamScene.start({ gateways: 2, workers: 1, token_ms: 5, config: { api_keys } });
}, 20_000);
afterAll(() => scene?.close());

const one = { authorization: "Bearer key-of-the-first-tenant" };
const two = { authorization: "Bearer key-of-the-other-tenant" };
const idOf = (id: string | null) => id?.slice(0, 32) ?? "";

test("the same idempotency key stands for a generation of each tenant, whatever the other asked with it", async () => {
  const key = { "idempotency-key": "k" };
  const first = await hear(await scene.complete(0, 5, { ...one, ...key }), nothingHeard());
  const other = await hear(await scene.complete(1, 7, { ...two, ...key }), nothingHeard());
  expect(first).toMatchObject({ text: wholeText(5), isDone: true });
  expect(other).toMatchObject({ text: wholeText(7), isDone: true });
  expect(idOf(other.id)).not.toBe(idOf(first.id));
  const again = await hear(await scene.complete(1, 5, { ...one, ...key }), nothingHeard());
  expect(idOf(again.id)).toBe(idOf(first.id));
  expect((await scene.complete(1, 5, { ...two, ...key })).status).toBe(409);
});

test("a generation of another tenant is not known, running or ended: not to be read, looked at or cancelled", async () => {
  const ask = (tokens: number, id = {}) =>
    scene.complete(0, tokens, { ...one, "x-sllm-resume": "60", ...id });
  const heard = nothingHeard();
  const reading = hear(await ask(400), heard);
  await eventually("it runs", () => heard.text !== "");
  const isUnknown = async (gateway: number) => {
    const at = `${scene.urlOf(gateway)}/v1/generations/${idOf(heard.id)}`;
    const asked = await Promise.all([
      fetch(at, { headers: two }),
      fetch(`${at}/stream?starting_after=0`, { headers: two }),
      fetch(`${at}/cancel`, { method: "POST", headers: two }),
      scene.complete(gateway, 400, { ...two, "last-event-id": heard.id ?? "" }),
    ]);
    expect(asked.map(({ status }) => status)).toEqual([404, 404, 404, 404]);
  };
  for (const gateway of [0, 1]) await isUnknown(gateway);
  await reading;
  expect(heard).toMatchObject({ text: wholeText(400), isDone: true, error: null });
  await isUnknown(1);
});

test("a place beyond the end of what still runs is refused by name when the end is known, and nothing changes", async () => {
  const heard = nothingHeard();
  const reading = hear(await scene.complete(0, 200, { ...one, "x-sllm-resume": "60" }), heard);
  await eventually("it runs", () => heard.text !== "");
  const beyond = [0, 1].map(async (gateway) => {
    const at = `${scene.urlOf(gateway)}/v1/generations/${idOf(heard.id)}/stream?starting_after=900`;
    return await hear(await fetch(at, { headers: one }), nothingHeard());
  });
  for (const said of await Promise.all(beyond)) {
    expect(said).toMatchObject({ text: "", isDone: false, error: "invalid_request" });
  }
  expect(await reading).toMatchObject({ text: wholeText(200), isDone: true, error: null });
});
