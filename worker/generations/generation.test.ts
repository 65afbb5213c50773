import { beforeEach, expect, test } from "bun:test";
import type { GenerationEvent, GenerationSettings, TokensEvent } from "../../schema/cluster/generate.ts";
import { limits } from "../../schema/limits.ts";
import { ManualClock } from "../../test/support/manual-clock.ts";
import type { EventReader } from "../ports.ts";
import { Generation } from "./generation.ts";

const settings: GenerationSettings = {
  prompt: { kind: "text", text: "x" },
  sampling: { temperature: 0, top_k: 0, top_p: 1, min_p: 0, seed: "1" },
  stop: [],
  max_tokens: 4,
  ignore_eos: false,
};
let clock: ManualClock;
let cancels: number;
let ends: number;
let generation: Generation;
let reader: EventReader<GenerationEvent>;

beforeEach(() => {
  clock = new ManualClock();
  cancels = 0;
  ends = 0;
  generation = new Generation({
    generation_id: "0".repeat(32),
    epoch: 1,
    instance_id: "i-0000000000000001",
    settings,
    hops: [{ worker_id: "w-0000000000000001", epoch: 1, first_index: 0 }],
    clock,
    onCancel: () => {
      cancels++;
    },
    onEnd: () => {
      ends++;
    },
  });
  reader = generation.readRun();
});

const tokens = (first_index: number, ...texts: string[]): GenerationEvent => ({
  type: "tokens",
  choice: 0,
  first_index,
  tokens: texts.map((text, i) => ({ token: first_index + i, text })),
});
const done: GenerationEvent = {
  type: "done",
  finish_reason: "stop",
  text: "",
  prompt_tokens: 1,
  completion_tokens: 2,
  timings: { queue_ms: 0, prefill_ms: 0, decode_ms: 0 },
};
const cancelled: GenerationEvent = { type: "error", error: { code: "cancelled", message: "" } };

test("a waiting reader gets each event at once, and null after the last", async () => {
  const first = reader.next();
  generation.push({ type: "started", prompt_tokens: 3 });
  expect(await first).toEqual({ type: "started", prompt_tokens: 3 });
  generation.push(done);
  expect(await reader.next()).toEqual(done);
  expect(await reader.next()).toBeNull();
  expect(ends).toBe(1);
});

test("tokens that a slow reader missed come in one event with consecutive indices", async () => {
  generation.push({ type: "started", prompt_tokens: 3 });
  generation.push(tokens(0, "a"));
  generation.push(tokens(1, "b", "c"));
  generation.push(done);
  expect(await reader.next()).toMatchObject({ type: "started" });
  expect(await reader.next()).toEqual(tokens(0, "a", "b", "c"));
  expect(await reader.next()).toEqual(done);
});

test("whoever begins to read after a tool call is told that there was one", () => {
  const call = { index: 0, name: "go", arguments: "{}" };
  generation.push(tokens(0, "a"));
  expect(generation.record().has_calls).toBeUndefined();
  generation.push({ ...tokens(1, "b"), delta: { tool_calls: [call] } } as GenerationEvent);
  generation.push(tokens(2, "c"));
  expect(generation.record().has_calls).toBe(true);
});

test("nothing follows the last event", async () => {
  generation.push(done);
  generation.push(tokens(9, "late"));
  expect(await reader.next()).toEqual(done);
  expect(await reader.next()).toBeNull();
});

test("a reader that leaves ends the generation only after the grace time", async () => {
  const pending = reader.next();
  reader.close();
  expect(await pending).toBeNull();
  await clock.advance(limits.orphan_grace_ms - 1);
  expect(cancels).toBe(0);
  await clock.advance(1);
  expect(cancels).toBe(1);
});

test("a generation that ends within the grace time is not cancelled", async () => {
  reader.close();
  generation.push(done);
  await clock.advance(limits.orphan_grace_ms * 2);
  expect(cancels).toBe(0);
  expect(clock.sleeping).toBe(0);
});

test("cancelling asks the engine and is done with once it has ended", async () => {
  expect(generation.cancel()).toBe(true);
  generation.push(cancelled);
  expect(await reader.next()).toEqual(cancelled);
  expect(generation.cancel()).toBe(false);
  expect(cancels).toBe(1);
});

test("a reader too far behind hears so, and others go on", async () => {
  const text = "x".repeat(1024 * 1024);
  const other = generation.readRun();
  for (let i = 0; i * text.length < 2 * limits.generation_log_bytes; i++) {
    generation.push(tokens(i, text));
    expect(await other.next()).toEqual(tokens(i, text));
  }
  expect(await reader.next()).toMatchObject({ type: "error", error: { code: "overloaded" } });
  expect(await reader.next()).toBeNull();
  expect(generation.hasEnded).toBe(false);
  expect(generation.bytes).toBeLessThanOrEqual(limits.generation_log_bytes);
  expect(() => generation.attach(0)).toThrow(expect.objectContaining({ code: "generation_lost" }));
});

test("an event that adds to a message is not split", async () => {
  generation.push({ ...(tokens(0, "{", "}") as TokensEvent), delta: { content: "{}" } });
  expect(() => generation.attach(1)).toThrow("middle of an event");
  expect(await generation.attach(2).next()).toMatchObject({ type: "record" });
});
