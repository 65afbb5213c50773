/** The reducer under random inputs: what must hold whatever the driver and the workers do. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { SllmError } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import { checkProperty } from "../../test/support/property.ts";
import { toEndMove, toTimeline } from "./end-record.ts";
import {
  advance,
  type Generation,
  type GenerationInput,
  hasEnded,
  mayPlaceAgain,
  newGeneration,
} from "./generation.ts";

const host = { worker_id: "w-1", instance_id: "i-1" };
const timings = { queue_ms: 1, prefill_ms: 10, decode_ms: 20 };
const fresh = () => newGeneration("0".repeat(32), "m", 100);
const error = new SllmError("worker_unavailable", "gone");

const finished: GenerationInput[] = [
  { type: "sent", host, at_ms: 110, load: null },
  { type: "started", prompt_tokens: 7 },
  { type: "tokens", first_index: 0, count: 2, at_ms: 130 },
  { type: "tokens", first_index: 2, count: 1, at_ms: 140 },
  { type: "done", finish_reason: "length", prompt_tokens: 7, completion_tokens: 3, timings },
];

const run = (inputs: readonly GenerationInput[]) => inputs.reduce(advance, fresh());

const someInput: fc.Arbitrary<GenerationInput> = fc.oneof(
  fc.constant({ type: "load_awaited", host, at_ms: 105 } as const),
  fc.constant({ type: "sent", host, at_ms: 110, load: null } as const),
  fc.constant({ type: "started", prompt_tokens: 7 } as const),
  fc.record({
    type: fc.constant("tokens" as const),
    first_index: fc.integer({ min: 0, max: 4 }),
    count: fc.integer({ min: 1, max: 3 }),
    at_ms: fc.constant(130),
  }),
  fc.constant({
    type: "done",
    finish_reason: "stop",
    prompt_tokens: 7,
    completion_tokens: 3,
    timings,
  } as const),
  fc.constant({ type: "attempt_failed" } as const),
  fc.constant({ type: "failed", error } as const),
  fc.constant({ type: "cancelled" } as const),
);

describe("a generation", () => {
  test("that runs to its end keeps what it learned", () => {
    expect(run(finished)).toMatchObject({
      ...{
        phase: "finished",
        next_index: 3,
        prompt_tokens: 7,
        completion_tokens: 3,
        finish_reason: "length",
      },
      ...{ worker_id: "w-1", instance_id: "i-1", cold_start: false },
    });
  });

  test("that waited for a load is a cold start, also after another attempt", () => {
    const state = run([
      { type: "load_awaited", host, at_ms: 105 },
      { type: "attempt_failed" },
      { type: "sent", host, at_ms: 120, load: null },
    ]);
    expect(state).toMatchObject({ cold_start: true, failed_attempts: 1 });
    expect(state.marks.told_ms).toBe(105);
  });

  test("takes no token twice and leaves none out, whatever arrives", () => {
    checkProperty(fc.array(someInput, { maxLength: 20 }), (inputs) => {
      let state = fresh();
      let due = 0;
      for (const input of inputs) {
        const before: Generation = state;
        try {
          state = advance(state, input);
        } catch (thrown) {
          const isWorkers = ["started", "tokens", "done"].includes(input.type);
          expect(thrown instanceof SllmError).toBe(isWorkers);
          expect(state).toBe(before);
          continue;
        }
        expect(hasEnded(before)).toBe(false);
        if (input.type === "tokens") {
          expect(input.first_index).toBe(due);
          due += input.count;
        }
        expect(state.next_index).toBe(due);
      }
      if (!hasEnded(state)) expect(() => toEndMove(state)).toThrow();
      else expect(toEndMove(state).to).toBe(state.phase as "finished");
    });
  });

  test("is placed again only before its first token, for failures of workers, a bounded number of times", () => {
    const sent = run(finished.slice(0, 2));
    expect(mayPlaceAgain(sent, error)).toBe(true);
    expect(mayPlaceAgain(sent, new SllmError("context_length_exceeded", "long"))).toBe(false);
    expect(mayPlaceAgain(run(finished.slice(0, 3)), error)).toBe(false);
    let state = fresh();
    let attempts = 1;
    while (mayPlaceAgain(state, error)) {
      state = advance(state, { type: "attempt_failed" });
      attempts += 1;
    }
    expect(attempts).toBe(limits.placement_attempts);
  });
});

describe("the timeline", () => {
  test("adds up from the arrival to the first token", () => {
    expect(toTimeline(run(finished).marks)).toEqual({
      ...{
        queue: 10,
        process_start: 0,
        disk_read: 0,
        model_build: 0,
        resume: 0,
        prefill: 10,
        first_token: 9,
        total: 30,
      },
    });
  });

  test("is absent without a first token", () => {
    expect(toTimeline(run(finished.slice(0, 2)).marks)).toBeNull();
    expect(toEndMove(run([{ type: "failed", error }]))).toMatchObject({
      to: "failed",
      reason: "worker_unavailable",
    });
  });
});
