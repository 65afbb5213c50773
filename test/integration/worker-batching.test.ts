/** Slots, queue and KV cache of one instance as a worker's settings and requests ask for them, with the echo engine. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { echoOf } from "../support/engine-client.ts";
import { eventually } from "../support/eventually.ts";
import { openNativeLibrary } from "../support/native.ts";
import { writeTinyCheckpoint } from "../support/tiny-checkpoint.ts";
import { generatedText, WorkerHost } from "../support/worker-host.ts";

let host: WorkerHost;
let digest: string;
beforeAll(async () => {
  const library = await openNativeLibrary();
  const variables = { SLLM_WORKER_ENGINE_QUEUE: "2", SLLM_WORKER_PREFILL_TOKENS: "16" };
  host = await WorkerHost.start({ echo_token_us: 5_000, variables });
  ({ digest } = writeTinyCheckpoint(host.store, { xxh3: (chunk) => library.digestXxh3(chunk) }));
}, 60_000);
afterAll(() => host?.close(), 60_000);

test("requests beyond slots and queue are refused as overloaded, the others are served in turn", async () => {
  const instance_id = await host.loadReady(digest, { slots: 1 });
  const first = host.generate(instance_id, { max_tokens: 100 });
  await eventually("the first one runs", async () => (await host.instance(instance_id))?.active === 1);
  const others = await Promise.all(
    Array.from({ length: 5 }, () => host.generate(instance_id, { max_tokens: 1 })),
  );
  const ends = others.map((events) => events.at(-1));
  expect(ends.filter((end) => end?.type === "done")).toHaveLength(2);
  const refused = ends.filter((end) => end?.type === "error");
  expect(refused).toHaveLength(3);
  for (const end of refused) expect(end).toMatchObject({ error: { code: "overloaded" } });
  expect((await first).at(-1)).toMatchObject({ type: "done", completion_tokens: 100 });
  await host.client.unload(host.address, instance_id, { if_idle: true });
}, 60_000);

test("a KV cache too short for all drops nobody, and what a prompt has in common with it is told", async () => {
  const instance_id = await host.loadReady(digest, {
    context_tokens: 64,
    slots: 3,
    kv_tokens: 100,
  });
  const all = await Promise.all([1, 2, 3].map(() => host.generate(instance_id, { max_tokens: 50 })));
  for (const events of all) {
    expect(events.at(-1)).toMatchObject({ type: "done", completion_tokens: 50 });
    expect(generatedText(events)).toBe(echoOf("to be or not ", 50));
  }
  const [started] = await host.generate(instance_id, { max_tokens: 1 });
  expect(started).toEqual({ type: "started", prompt_tokens: 13, cached_tokens: 12 });
  await host.client.unload(host.address, instance_id, { if_idle: true });
}, 60_000);
