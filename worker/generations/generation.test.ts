import { beforeEach, expect, test } from "bun:test";
import type { GenerationEvent } from "../../schema/cluster/generate.ts";
import { limits } from "../../schema/limits.ts";
import { ManualClock } from "../../test/support/manual-clock.ts";
import { Generation } from "./generation.ts";

let clock: ManualClock;
let cancels: number;
let ends: number;
let generation: Generation;

beforeEach(() => {
  clock = new ManualClock();
  cancels = 0;
  ends = 0;
  generation = new Generation({
    generation_id: "0".repeat(32),
    epoch: 1,
    clock,
    onCancel: () => {
      cancels++;
    },
    onEnd: () => {
      ends++;
    },
  });
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
  const first = generation.next();
  generation.push({ type: "started", prompt_tokens: 3 });
  expect(await first).toEqual({ type: "started", prompt_tokens: 3 });
  generation.push(done);
  expect(await generation.next()).toEqual(done);
  expect(await generation.next()).toBeNull();
  expect(ends).toBe(1);
});

test("tokens that a slow reader missed come in one event with consecutive indices", async () => {
  generation.push({ type: "started", prompt_tokens: 3 });
  generation.push(tokens(0, "a"));
  generation.push(tokens(1, "b", "c"));
  generation.push(done);
  expect(await generation.next()).toMatchObject({ type: "started" });
  expect(await generation.next()).toEqual(tokens(0, "a", "b", "c"));
  expect(await generation.next()).toEqual(done);
});

test("nothing follows the last event", async () => {
  generation.push(done);
  generation.push(tokens(9, "late"));
  expect(await generation.next()).toEqual(done);
  expect(await generation.next()).toBeNull();
});

test("a reader that leaves ends the generation only after the grace time", async () => {
  const pending = generation.next();
  generation.close();
  expect(await pending).toBeNull();
  await clock.advance(limits.orphan_grace_ms - 1);
  expect(cancels).toBe(0);
  await clock.advance(1);
  expect(cancels).toBe(1);
});

test("a generation that ends within the grace time is not cancelled", async () => {
  generation.close();
  generation.push(done);
  await clock.advance(limits.orphan_grace_ms * 2);
  expect(cancels).toBe(0);
  expect(clock.sleeping).toBe(0);
});

test("cancelling asks the engine and is done with once it has ended", async () => {
  expect(generation.cancel()).toBe(true);
  generation.push(cancelled);
  expect(await generation.next()).toEqual(cancelled);
  expect(generation.cancel()).toBe(false);
  expect(cancels).toBe(1);
});

test("a reader too far behind loses the generation instead of the worker its memory", async () => {
  const text = "x".repeat(64 * 1024);
  for (let i = 0; !generation.hasEnded; i++) {
    generation.push(tokens(i, text));
    expect(i).toBeLessThan(20);
  }
  expect(cancels).toBe(1);
  let last: GenerationEvent | null = null;
  for (let event = await generation.next(); event !== null; event = await generation.next()) last = event;
  expect(last).toMatchObject({ type: "error", error: { code: "overloaded" } });
});

test("what was read does not count as behind", async () => {
  const text = "x".repeat(256 * 1024);
  for (let i = 0; i < 16; i++) {
    generation.push(tokens(i, text));
    expect(await generation.next()).toEqual(tokens(i, text));
  }
  expect(generation.hasEnded).toBe(false);
});
