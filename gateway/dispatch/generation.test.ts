/** The reducer under random inputs: what must hold whatever the driver and the workers do. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { SllmError } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import { checkProperty } from "../../test/support/property.ts";
import { dueIn, isOnPath, mayPlaceAgain } from "./due.ts";
import { toEndMove, toTimeline } from "./end-record.ts";
import {
  advance,
  foundGeneration,
  type Generation,
  type GenerationInput,
  hasEnded,
  newGeneration,
} from "./generation.ts";

const host = { worker_id: "w-1", instance_id: "i-1" };
const other = { worker_id: "w-2", instance_id: "i-2" };
const timings = { queue_ms: 1, prefill_ms: 10, decode_ms: 20 };
const fresh = () => newGeneration("0".repeat(32), "m", 100);
const error = new SllmError("worker_unavailable", "gone");
const failedAttempt = { type: "attempt_failed", takes_claim: false } as const;
const sent = { type: "sent", host, at_ms: 110, load: null } as const;
const started = { type: "started", prompt_tokens: 7 } as const;
const tokens = (first_index: number, count: number) =>
  ({ type: "tokens", first_index, count, at_ms: 130 + first_index }) as const;

const finished: GenerationInput[] = [
  sent,
  started,
  tokens(0, 2),
  tokens(2, 1),
  { type: "done", finish_reason: "length", prompt_tokens: 7, completion_tokens: 3, timings },
];

const run = (inputs: readonly GenerationInput[], from = fresh()) => inputs.reduce(advance, from);

const someInput: fc.Arbitrary<GenerationInput> = fc.oneof(
  fc.constant({ type: "load_awaited", host, at_ms: 105 } as const),
  fc.constant(sent),
  fc.constant(started),
  fc.record({
    type: fc.constant("tokens" as const),
    first_index: fc.integer({ min: 0, max: 4 }),
    count: fc.integer({ min: 1, max: 3 }),
    at_ms: fc.constant(130),
  }),
  fc.constant({ ...finished[4] } as GenerationInput),
  fc.record({ type: fc.constant("attempt_failed" as const), takes_claim: fc.boolean() }),
  fc.constant({ type: "lost" } as const),
  fc.constant({ type: "attached", epoch: 1, instance_id: "i-1", hops: [] } as const),
  fc.constant({ type: "hand_over", to: { ...other, epoch: 2 } } as const),
  fc.constant({ type: "hand_over_ended" } as const),
  fc.constant({ type: "moved", to: { ...other, epoch: 2 } } as const),
  fc.constant({ type: "superseded", at: { ...other, epoch: 3 } } as const),
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
      failedAttempt,
      { type: "sent", host, at_ms: 120, load: null },
    ]);
    expect(state).toMatchObject({ cold_start: true, failed_attempts: 1, epoch: 2 });
    expect(state.marks.told_ms).toBe(105);
  });

  test("counts every token once, never goes back, and has something due until it ends, whatever arrives", () => {
    checkProperty(fc.array(someInput, { maxLength: 30 }), (inputs) => {
      let state = fresh();
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
        expect(state.epoch).toBeGreaterThanOrEqual(before.epoch);
        const isNext = input.type === "tokens" && input.first_index <= before.next_index;
        const due = isNext ? Math.max(before.next_index, input.first_index + input.count) : before.next_index;
        expect(state.next_index).toBe(due);
        expect(dueIn(state).kind === "end").toBe(hasEnded(state));
      }
      if (!hasEnded(state)) expect(() => toEndMove(state)).toThrow();
      else expect(toEndMove(state).to).toBe(state.phase as "finished");
    });
  });

  test("is placed again for failures of workers, a bounded number of times without a new token", () => {
    const begun = run(finished.slice(0, 2));
    expect(mayPlaceAgain(begun, error)).toBe(true);
    expect(mayPlaceAgain(begun, new SllmError("context_length_exceeded", "long"))).toBe(false);
    const attempts = (thrown: SllmError, state = fresh()): number =>
      mayPlaceAgain(state, thrown) ? 1 + attempts(thrown, advance(state, failedAttempt)) : 1;
    // Workers are lost for reasons of their own; an engine may have crashed by the prompt.
    for (const code of ["worker_unavailable", "engine_killed", "engine_silent"] as const) {
      expect(attempts(new SllmError(code, "lost"))).toBe(limits.failover_attempts);
    }
    const crashed = new SllmError("engine_failed", "signal 11");
    expect(attempts(crashed)).toBe(limits.placement_attempts);
    expect(attempts(crashed, run([sent, started]))).toBe(limits.placement_attempts);
    expect(attempts(crashed, run([sent, started, tokens(0, 1)]))).toBe(limits.failover_attempts);
  });
});

describe("a stream that breaks", () => {
  const running = run([sent, started, tokens(0, 3)]);

  test("is read again where it was, from the next token on; tokens that came before change nothing", () => {
    const lost = advance(running, { type: "lost" });
    expect(dueIn(lost)).toEqual({ kind: "attach", at: host, from: 3 });
    const again = run(
      [{ type: "attached", epoch: 1, instance_id: "i-1", hops: running.hops }, tokens(1, 2)],
      lost,
    );
    expect(again).toMatchObject({ phase: "running", next_index: 3 });
    expect(run([tokens(2, 3)], again).next_index).toBe(5);
  });

  test("with a gap is fetched from where it stands", () => {
    expect(dueIn(run([tokens(5, 1)], running))).toEqual({ kind: "attach", at: host, from: 3 });
  });

  test("goes on elsewhere with a higher epoch, won where others may have been faster", () => {
    const lost = advance(running, { type: "lost" });
    expect(dueIn(advance(lost, failedAttempt))).toEqual({ kind: "place" });
    const claiming = advance(lost, { type: "attempt_failed", takes_claim: true });
    expect(dueIn(claiming)).toEqual({ kind: "claim", seen_epoch: 1 });
    const won = run(
      [
        { type: "claimed", epoch: 2 },
        { ...sent, host: other },
      ],
      claiming,
    );
    expect(won).toMatchObject({ epoch: 2, is_owner: true });
    expect(won.hops).toEqual([
      { worker_id: "w-1", epoch: 1, first_index: 0 },
      { worker_id: "w-2", epoch: 2, first_index: 3 },
    ]);
    const beaten = advance(claiming, { type: "superseded", at: { ...other, epoch: 2 } });
    expect(beaten).toMatchObject({ is_owner: false, epoch: 2 });
    expect(dueIn(beaten)).toEqual({ kind: "attach", at: other, from: 3 });
  });

  test("in a hand-over asks the destination first, and is claimed when that does not have it", () => {
    const handing = advance(running, { type: "hand_over", to: { ...other, epoch: 2 } });
    expect(handing.phase).toBe("running");
    const lost = advance(handing, { type: "lost" });
    expect(dueIn(lost)).toEqual({ kind: "attach", at: other, from: 3 });
    const claiming = advance(lost, { type: "attempt_failed", takes_claim: true });
    expect(dueIn(claiming)).toEqual({ kind: "claim", seen_epoch: 2 });
    const goesOn = run([{ type: "hand_over_ended" }, { type: "lost" }], handing);
    expect(dueIn(goesOn)).toEqual({ kind: "attach", at: host, from: 3 });
  });

  test("that moved is read where it went", () => {
    const moved = advance(running, { type: "moved", to: { ...other, epoch: 2 } });
    expect(dueIn(moved)).toEqual({ kind: "attach", at: other, from: 3 });
  });

  test("of another gateway is found by its place, or claimed where that is unknown", () => {
    const at = { ...host, epoch: 4 };
    const found = foundGeneration("0".repeat(32), "m", 1, { at, epoch: 4, next_index: 9 });
    expect(dueIn(found)).toEqual({ kind: "attach", at: host, from: 9 });
    const nowhere = foundGeneration("0".repeat(32), "m", 1, { at: null, epoch: 4, next_index: 9 });
    expect(dueIn(nowhere)).toEqual({ kind: "claim", seen_epoch: 4 });
  });
});

test("a token that a worker made after the others had gone on without it is on no path", () => {
  const hops = [
    { worker_id: "w-1", epoch: 1, first_index: 0 },
    { worker_id: "w-2", epoch: 2, first_index: 10 },
  ];
  expect(isOnPath(hops, "w-1", 9)).toBe(true);
  expect(isOnPath(hops, "w-1", 10)).toBe(false);
  expect(isOnPath(hops, "w-2", 3)).toBe(true);
  expect(isOnPath(hops, "w-2", 300)).toBe(true);
  expect(isOnPath(hops, "w-3", 3)).toBe(false);
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
