/** The main job over public HTTP: a request meets no instance, one is started, its tokens stream. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import path from "node:path";
import { chatChunk } from "../../schema/api/answers.ts";
import { parseEventId } from "../../schema/ids.ts";
import { makeModel } from "../models/make-model.ts";
import { TestCluster } from "../support/cluster.ts";
import { collectSse, readSse } from "../support/sse-client.ts";

let cluster: TestCluster;
beforeAll(async () => {
  cluster = await TestCluster.start();
  await cluster.deploy("romeo", undefined, { deterministic: true });
}, 120_000);
afterAll(() => cluster?.close(), 60_000);

const ask = (extra: object = {}) => ({
  model: "romeo",
  messages: [{ role: "user", content: "Speak of love." }],
  temperature: 0,
  max_tokens: 24,
  ...extra,
});

test("a cold streaming request is told what it waits for, then streams numbered tokens to [DONE]", async () => {
  const response = await cluster.post("/v1/chat/completions", ask({ stream: true }));
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toContain("text/event-stream");
  expect(response.headers.get("x-request-id")).toBeTruthy();
  const received = await collectSse(response);

  const comments = received.filter((r) => r.kind === "comment");
  expect(comments.length).toBeGreaterThan(0);
  expect(received[0]?.kind).toBe("comment");
  expect(comments.some((c) => c.data.includes('"state":"loading"'))).toBe(true);

  const events = received.filter((r) => r.kind === "event");
  expect(events.at(-1)?.data).toBe("[DONE]");
  const chunks = events.slice(0, -1).map((e) => chatChunk.parse(JSON.parse(e.data)));
  expect(chunks[0]?.choices[0]?.delta.role).toBe("assistant");
  expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe("length");
  expect(new Set(chunks.map((c) => `${c.id} ${c.created} ${c.model}`)).size).toBe(1);

  const ids = events.slice(0, -1).map((e) => parseEventId(e.id ?? ""));
  expect(ids.every((id) => id !== null && id.choice === 0)).toBe(true);
  const indices = ids.map((id) => id?.last_token_index ?? Number.NaN);
  expect(indices).toEqual([...indices].sort((a, b) => a - b));
  // Of 24 tokens; the end has the id after the last one.
  expect(indices.slice(-2)).toEqual([23, 24]);
}, 60_000);

test("the same greedy request gives the same text, streamed or not, cold or warm", async () => {
  const whole = await (await cluster.post("/v1/chat/completions", ask())).json();
  const streamed = await collectSse(await cluster.post("/v1/chat/completions", ask({ stream: true })));
  const text = streamed
    .filter((r) => r.kind === "event" && r.data !== "[DONE]")
    .map((r) => chatChunk.parse(JSON.parse(r.data)).choices[0]?.delta.content ?? "")
    .join("");
  expect(text.length).toBeGreaterThan(20);
  expect(whole.choices[0].message.content).toBe(text);
  expect(whole.usage.completion_tokens).toBe(24);
  expect(whole.usage.total_tokens).toBe(whole.usage.prompt_tokens + 24);
  // All of the prompt but its last token, which is computed for what comes after it.
  expect(whole.usage.prompt_tokens_details.cached_tokens).toBe(whole.usage.prompt_tokens - 1);
}, 60_000);

test("a seeded sampled request can be repeated", async () => {
  const once = async () =>
    (await (await cluster.post("/v1/chat/completions", ask({ temperature: 0.9, seed: 7 }))).json()).choices[0]
      .message.content;
  expect(await once()).toBe(await once());
}, 60_000);

test("the generation's row tells where the time of the start went", async () => {
  await cluster.deploy("romeo-timeline");
  const started = performance.now();
  const response = await cluster.post("/v1/chat/completions", { ...ask(), model: "romeo-timeline" });
  const elapsed_ms = performance.now() - started;
  const id = (await response.json()).id as string;
  const row = await cluster.endedGeneration(id.replace("chatcmpl-", ""));
  expect(row.state).toBe("finished");
  expect(row.cold_start).toBe(true);
  const timeline = row.timeline_ms;
  if (!timeline) throw new Error("no timeline");
  expect(timeline.model_build).toBeGreaterThan(0);
  expect(timeline.prefill).toBeGreaterThan(0);
  expect(timeline.total).toBeGreaterThanOrEqual(timeline.model_build);
  expect(timeline.total).toBeLessThanOrEqual(elapsed_ms);
}, 60_000);

test("stop strings end the text before them, also when they cross tokens", async () => {
  const full: string = (await (await cluster.post("/v1/chat/completions", ask())).json()).choices[0].message
    .content;
  const stop = full.slice(10, 17);
  const cut = await (await cluster.post("/v1/chat/completions", ask({ stop: [stop] }))).json();
  expect(cut.choices[0].finish_reason).toBe("stop");
  expect(cut.choices[0].message.content).toBe(full.slice(0, full.indexOf(stop)));
}, 60_000);

test("text completions stream and answer whole", async () => {
  const body = { model: "romeo", prompt: "ROMEO:\n", temperature: 0, max_tokens: 12 };
  const whole = await (await cluster.post("/v1/completions", body)).json();
  expect(whole.object).toBe("text_completion");
  const received = await collectSse(await cluster.post("/v1/completions", { ...body, stream: true }));
  const events = received.filter((r) => r.kind === "event");
  expect(events.at(-1)?.data).toBe("[DONE]");
  const text = events.slice(0, -1).map((e) => JSON.parse(e.data).choices[0]?.text ?? "");
  expect(text.join("")).toBe(whole.choices[0].text);
}, 60_000);

test("a client that leaves frees its slot within a second", async () => {
  // Large enough that its answer would take seconds.
  const gguf = path.join(cluster.folder, "slow.gguf");
  await makeModel({ architecture: "llama", size_bytes: 120e6, type: "f16", out: gguf, seed: 1 });
  await cluster.deploy("slow", gguf, { context_tokens: 256 });
  const body = { ...ask({ stream: true, ignore_eos: true }), model: "slow", max_tokens: 200 };
  let generation_id = "";
  for await (const received of readSse(await cluster.post("/v1/chat/completions", body))) {
    const id = parseEventId(received.id ?? "");
    if (id === null || id.last_token_index < 2) continue;
    generation_id = id.generation_id;
    break;
  }
  const left = performance.now();
  for (;;) {
    const active = (await cluster.workerStatus()).instances.reduce((sum, i) => sum + i.active + i.queued, 0);
    if (active === 0) break;
    expect(performance.now() - left).toBeLessThan(1_000);
    await Bun.sleep(10);
  }
  const row = await cluster.endedGeneration(generation_id);
  expect(row.state).toBe("cancelled");
}, 60_000);
