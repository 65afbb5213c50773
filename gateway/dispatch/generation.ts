/**
 * The life of one generation as a reducer: state and input in, next state out. Pure; the driver feeds it and does
 * what it says. gateway/README.md draws it.
 */
import type { GenerationTimings } from "../../schema/cluster/generate.ts";
import type { LoadTimings } from "../../schema/cluster/instances.ts";
import type { ErrorCode } from "../../schema/codes.ts";
import { SllmError } from "../../schema/error.ts";
import type { GenerationId, InstanceId, ModelId, WorkerId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { FinishReason } from "../../schema/vocab.ts";

/** `sent`: a worker was told. `running`: it took the prompt. The last three are ends. */
export type Phase = "queued" | "loading" | "sent" | "running" | "finished" | "cancelled" | "failed";

export interface Generation {
  readonly generation_id: GenerationId;
  readonly model_id: ModelId;
  readonly phase: Phase;
  /** Attempts that failed before the first token. The epoch sent to a worker is one more. */
  readonly failed_attempts: number;
  readonly cold_start: boolean;
  readonly worker_id: WorkerId | null;
  readonly instance_id: InstanceId | null;
  /** Index of the token that must come next. */
  readonly next_index: number;
  readonly prompt_tokens: number | null;
  readonly completion_tokens: number | null;
  readonly finish_reason: FinishReason | null;
  readonly error: SllmError | null;
  readonly marks: Marks;
}

/** Moments on the gateway's monotonic clock, and what others measured. */
export interface Marks {
  readonly arrived_ms: number;
  /** First time that a worker was told to load or to generate. */
  readonly told_ms: number | null;
  /** Last time that a worker was told to generate. */
  readonly sent_ms: number | null;
  readonly first_token_ms: number | null;
  /** Of the load it waited for. */
  readonly load: LoadTimings | null;
  readonly worker: GenerationTimings | null;
}

interface Host {
  readonly worker_id: WorkerId;
  readonly instance_id: InstanceId;
}

export type GenerationInput =
  | { readonly type: "load_awaited"; readonly host: Host; readonly at_ms: number }
  | { readonly type: "sent"; readonly host: Host; readonly at_ms: number; readonly load: LoadTimings | null }
  | { readonly type: "started"; readonly prompt_tokens: number }
  | { readonly type: "tokens"; readonly first_index: number; readonly count: number; readonly at_ms: number }
  | {
      readonly type: "done";
      readonly finish_reason: FinishReason;
      readonly prompt_tokens: number;
      readonly completion_tokens: number;
      readonly timings: GenerationTimings;
    }
  /** The attempt failed and another one is due. */
  | { readonly type: "attempt_failed" }
  | { readonly type: "failed"; readonly error: SllmError }
  | { readonly type: "cancelled" };

export function newGeneration(
  generation_id: GenerationId,
  model_id: ModelId,
  arrived_ms: number,
): Generation {
  return {
    generation_id,
    model_id,
    phase: "queued",
    failed_attempts: 0,
    cold_start: false,
    worker_id: null,
    instance_id: null,
    next_index: 0,
    prompt_tokens: null,
    completion_tokens: null,
    finish_reason: null,
    error: null,
    marks: { arrived_ms, told_ms: null, sent_ms: null, first_token_ms: null, load: null, worker: null },
  };
}

/** Phases in which an input is legal. Ends take none: whatever comes later is a defect of the driver. */
const legalPhases: Readonly<Record<GenerationInput["type"], readonly Phase[]>> = {
  load_awaited: ["queued", "loading"],
  sent: ["queued", "loading"],
  started: ["sent"],
  tokens: ["running"],
  done: ["running"],
  attempt_failed: ["queued", "loading", "sent", "running"],
  failed: ["queued", "loading", "sent", "running"],
  cancelled: ["queued", "loading", "sent", "running"],
};

/** Inputs that come from a worker: out of place they are its fault, otherwise ours. */
const workerInputs: ReadonlySet<GenerationInput["type"]> = new Set(["started", "tokens", "done"]);

/**
 * The next state. A worker that answers out of order or skips a token throws `generation_lost`; any other input out
 * of place is a defect and throws a plain error.
 */
export function advance(state: Generation, input: GenerationInput): Generation {
  if (!legalPhases[input.type].includes(state.phase)) {
    const text = `"${input.type}" cannot follow the phase "${state.phase}"`;
    if (workerInputs.has(input.type))
      throw new SllmError("generation_lost", `The worker broke the protocol: ${text}.`);
    throw new Error(text);
  }
  const { marks } = state;
  switch (input.type) {
    case "load_awaited":
      return {
        ...state,
        ...input.host,
        phase: "loading",
        cold_start: true,
        marks: { ...marks, told_ms: marks.told_ms ?? input.at_ms },
      };
    case "sent": {
      const told_ms = marks.told_ms ?? input.at_ms;
      const load = input.load ?? marks.load;
      return {
        ...state,
        ...input.host,
        phase: "sent",
        marks: { ...marks, told_ms, sent_ms: input.at_ms, load },
      };
    }
    case "started":
      return { ...state, phase: "running", prompt_tokens: input.prompt_tokens };
    case "tokens":
      return takeTokens(state, input.first_index, input.count, input.at_ms);
    case "done":
      return {
        ...state,
        phase: "finished",
        finish_reason: input.finish_reason,
        prompt_tokens: input.prompt_tokens,
        completion_tokens: input.completion_tokens,
        marks: { ...marks, worker: input.timings },
      };
    case "attempt_failed":
      return { ...state, phase: "queued", failed_attempts: state.failed_attempts + 1, prompt_tokens: null };
    case "failed":
      return { ...state, phase: "failed", error: input.error };
    case "cancelled":
      return { ...state, phase: "cancelled" };
  }
}

function takeTokens(state: Generation, first_index: number, count: number, at_ms: number): Generation {
  if (first_index !== state.next_index) {
    const text = `token ${state.next_index} was due, ${first_index} came`;
    throw new SllmError("generation_lost", `The worker broke the protocol: ${text}.`);
  }
  const next_index = first_index + count;
  if (state.marks.first_token_ms !== null) return { ...state, next_index };
  return { ...state, next_index, marks: { ...state.marks, first_token_ms: at_ms } };
}

export function hasEnded(state: Generation): boolean {
  return state.phase === "finished" || state.phase === "cancelled" || state.phase === "failed";
}

/** Failures that another attempt may not meet: of the worker, its engine, or an instance that is being stopped. */
const placeAgainCodes: ReadonlySet<ErrorCode> = new Set([
  "worker_unavailable",
  "not_found",
  "engine_failed",
  "state_conflict",
]);

/** True when a failed attempt may be followed by another: nothing was shown yet and attempts are left. */
export function mayPlaceAgain(state: Generation, error: SllmError): boolean {
  return (
    !hasEnded(state) &&
    state.next_index === 0 &&
    state.failed_attempts + 1 < limits.placement_attempts &&
    placeAgainCodes.has(error.code)
  );
}
