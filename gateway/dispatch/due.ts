/** What follows from where a generation stands: what is due, whether to try again, who may go on reading. Pure. */
import type { GenerationHop } from "../../schema/cluster/generate.ts";
import type { ErrorCode } from "../../schema/codes.ts";
import type { SllmError } from "../../schema/error.ts";
import type { InstanceId, WorkerId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import { type Generation, hasEnded } from "./generation.ts";

interface Host {
  readonly worker_id: WorkerId;
  readonly instance_id: InstanceId;
}

/** What the driver has to do in a state. */
export type Due =
  /** Find an instance and send it there, with what was told so far. */
  | { readonly kind: "place" }
  | { readonly kind: "read" }
  | { readonly kind: "attach"; readonly at: Host; readonly from: number }
  /** Win the epoch after the one that is known; who loses is superseded. */
  | { readonly kind: "claim"; readonly seen_epoch: number }
  | { readonly kind: "end" };

export function dueIn(state: Generation): Due {
  const { phase, worker_id, instance_id, next_index, epoch } = state;
  if (hasEnded(state)) return { kind: "end" };
  if (phase === "queued") return { kind: "place" };
  if (phase === "claiming") return { kind: "claim", seen_epoch: epoch };
  if (phase !== "detached") return { kind: "read" };
  if (worker_id === null || instance_id === null) throw new Error("a detached generation has a place");
  return { kind: "attach", at: { worker_id, instance_id }, from: next_index };
}

/** Failures that another attempt may not meet: of the worker, its engine, or an instance that is being stopped. */
const placeAgainCodes: ReadonlySet<ErrorCode> = new Set([
  "worker_unavailable",
  "not_found",
  "engine_failed",
  "engine_killed",
  "engine_silent",
  "state_conflict",
  "stale_generation",
]);

/** What a stream that has begun waits out as well: where it can go on may be up again in a moment. */
const waitOutCodes: ReadonlySet<ErrorCode> = new Set([
  "no_worker",
  "checkpoint_unavailable",
  "model_loading",
  "model_load_failed",
  "overloaded",
]);

/** What befalls workers and engines from outside: no prompt does that. */
const outsideCodes: ReadonlySet<ErrorCode> = new Set([
  "worker_unavailable",
  "engine_killed",
  "engine_silent",
]);

/** True when a failed attempt may be followed by another: it had a reason of the worker's, and attempts are left. */
export function mayPlaceAgain(state: Generation, error: SllmError): boolean {
  const hasBegun = state.next_index > 0;
  // A prompt may be what crashes engines, and must not go on crashing them. Workers that are away are known to be lost soon.
  const most =
    hasBegun || outsideCodes.has(error.code) ? limits.failover_attempts : limits.placement_attempts;
  return (
    !hasEnded(state) &&
    state.failed_attempts + 1 < most &&
    state.hops.length < limits.generation_hops &&
    (placeAgainCodes.has(error.code) || (hasBegun && waitOutCodes.has(error.code)))
  );
}

/**
 * Whether the token was made where an event id says, or told there later: what a worker made that was not asked any more
 * is nobody's, and who has seen it cannot be continued.
 */
export function isOnPath(hops: readonly GenerationHop[], worker_id: WorkerId, last_index: number): boolean {
  const place = hops.findLastIndex((hop) => hop.worker_id === worker_id);
  const next = hops[place + 1];
  return place >= 0 && (next === undefined || last_index < next.first_index);
}

/** Whether two paths have the token of one run: then all before it is the same as well. */
export function haveSameMaker(
  hops: readonly GenerationHop[],
  others: readonly GenerationHop[],
  index: number,
): boolean {
  const [one, other] = [makerOf(hops, index), makerOf(others, index)];
  return one !== undefined && one.worker_id === other?.worker_id && one.epoch === other.epoch;
}

function makerOf(hops: readonly GenerationHop[], index: number): GenerationHop | undefined {
  return hops.findLast((hop) => hop.first_index <= index);
}
