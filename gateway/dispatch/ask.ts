/** What a request asks the placer for, what it gets, and the rules about both that need no state. */
import type { LoadTimings } from "../../schema/cluster/instances.ts";
import type { InstanceRow } from "../../schema/db/tables.ts";
import { SllmError } from "../../schema/error.ts";
import type { CheckpointDigest, InstanceId, ModelId, WorkerId } from "../../schema/ids.ts";
import type { Ticket } from "../admission/ticket.ts";
import type { InstanceUse } from "../placement/instance-uses.ts";
import type { Action } from "../scheduler/decision.ts";

export interface Deadline {
  /** When waiting is given up, on the monotonic clock. */
  readonly deadline_ms: number;
  /** The request itself named it: one that cannot be kept is not waited for. */
  readonly is_own: boolean;
}

export interface Ask {
  readonly model_id: ModelId;
  /** Checkpoint that the worker must have besides the model's; null for none. */
  readonly adapter: CheckpointDigest | null;
  /** Aborts when the client has left. */
  readonly signal: AbortSignal;
  /** On the monotonic clock: when the request came. */
  readonly arrived_ms: number;
  readonly deadline: Deadline;
  readonly ticket: Ticket;
  /** Attempts at hosts that failed before this one. */
  readonly failed_attempts: number;
  /** Hosts that failed this request; taken again, after a pause, only when there is no other. */
  readonly avoid: { readonly workers: ReadonlySet<WorkerId>; readonly instances: ReadonlySet<InstanceId> };
  /** Told whenever the request begins to wait for the load of an instance. */
  readonly onLoadAwaited: (instance: InstanceRow) => void;
}

/** An instance taken into use for the request. Whoever gets it releases the use. */
export interface Placement {
  readonly instance: InstanceRow;
  readonly use: InstanceUse;
  /** Aborted when the instance ends before the use is released. */
  readonly lost: AbortController;
  readonly cold_start: boolean;
  readonly load: LoadTimings | null;
}

/** Nothing can be begun for the request. */
export function isRefusal(action: Action): boolean {
  return action.kind === "hold" || action.kind === "cannot_now" || action.kind === "cannot_ever";
}

/** Says of the whole fleet that it cannot serve the request: not merely that it is full. */
export function isVerdict(action: Action): boolean {
  return action.kind === "cannot_ever" || (action.kind === "cannot_now" && action.code === "no_worker");
}

export function throwIfCancelled(signal: AbortSignal): void {
  if (signal.aborted) throw new SllmError("cancelled", "The client closed the request.");
}
