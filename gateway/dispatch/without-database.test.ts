/** Requests and the database: warm ones wait for none of its answers, cold ones wait until it is back. */
import { expect, test } from "bun:test";
import { GatewayScene } from "../../test/support/gateway-scene.ts";
import { ManualClock, settle } from "../../test/support/manual-clock.ts";

/** What a stream holds so far, up to the first token. */
async function untilFirstToken(response: Response): Promise<string> {
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (!text.includes('"Hello"')) {
    const next = await reader?.read();
    if (next === undefined || next.done) throw new Error(`the stream ended early: ${text}`);
    text += next.value;
  }
  await reader?.cancel();
  return text;
}

test("a warm request asks the database nothing before its first token", async () => {
  const scene = new GatewayScene();
  const { model } = await scene.warm();
  await settle();
  const before = new Map(scene.store.calls);
  await untilFirstToken(await scene.chat(model.id, { stream: true }));
  expect(scene.store.calls).toEqual(before);
});

test("warm requests go on while the database is away, and are on record when it is back", async () => {
  const clock = new ManualClock();
  const scene = new GatewayScene({ clock });
  const { model } = await scene.warm();
  scene.store.isAway = true;
  const answers = await Promise.all(
    Array.from({ length: 20 }, async () => {
      const answer = await scene.chat(model.id);
      expect(answer.status).toBe(200);
      return (await answer.json()).id.replace(/^chatcmpl-/, "");
    }),
  );
  await clock.advance(30_000);
  scene.store.isAway = false;
  await clock.advance(10_000);
  for (const id of answers) expect(await scene.store.getGeneration(id)).toMatchObject({ state: "finished" });
  expect(scene.log.filter((line) => line.level === "error")).toEqual([]);
});

test("a cold request waits for the database and is served when it is back", async () => {
  const clock = new ManualClock();
  const scene = new GatewayScene({ clock });
  const { model } = await scene.ready();
  scene.store.isAway = true;
  const answer = scene.chat(model.id);
  await clock.advance(30_000);
  const { data } = await (await scene.get("/admin/v1/queue")).json();
  expect(data).toMatchObject([{ model_id: model.id, state: "queued", reason: "waits for the database" }]);
  scene.store.isAway = false;
  await clock.advance(5_000);
  expect((await answer).status).toBe(200);
  expect(scene.workers.loads).toHaveLength(1);
});

test("a cold request is told why it was not served when the database stays away for too long", async () => {
  const clock = new ManualClock();
  const scene = new GatewayScene({ clock, config: { hold_ms: 20_000 } });
  const { model } = await scene.ready();
  scene.store.isAway = true;
  const answer = scene.chat(model.id);
  await clock.advance(21_000);
  const response = await answer;
  expect(response.status).toBe(503);
  expect((await response.json()).error.code).toBe("state_unavailable");
});
