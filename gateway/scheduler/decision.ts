/** What the scheduler answers: one action with its reason, what it is expected to take, and the candidates that lost. */
import type { ErrorCode } from "../../schema/codes.ts";
import type { InstanceId, ModelId, WorkerId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { Tier } from "../../schema/vocab.ts";
import { compareText } from "./order.ts";

/** A possibility that was looked at and not taken. */
export interface Loser {
  /** What would have been done there; null for what can do nothing. */
  readonly choice: Action["kind"] | null;
  readonly worker_id: WorkerId;
  readonly device_id: string | null;
  readonly instance_id: InstanceId | null;
  /** Until the request would be served; null where nobody asked. */
  readonly estimate_ms: number | null;
  readonly why: string;
}

export type Action =
  /** A free slot of a running instance. */
  | { readonly kind: "use"; readonly instance_id: InstanceId }
  /** An instance that is being loaded. */
  | { readonly kind: "wait"; readonly instance_id: InstanceId }
  /** A new instance, or a parked one again, in free memory. */
  | { readonly kind: "start"; readonly target: StartTarget }
  /** Stop these idle instances; their memory and what is free admit one on the target. */
  | { readonly kind: "reclaim"; readonly target: StartTarget; readonly victims: readonly InstanceId[] }
  /** Move running instances away and stop idle ones; then there is room on the target. */
  | {
      readonly kind: "migrate";
      readonly target: StartTarget;
      readonly moves: readonly Move[];
      readonly victims: readonly InstanceId[];
    }
  /** Stop running instances of others. Only the policy `preemptive` says this. */
  | { readonly kind: "preempt"; readonly target: StartTarget; readonly victims: readonly InstanceId[] }
  /** A running instance without a free slot: its engine queues. */
  | { readonly kind: "queue"; readonly instance_id: InstanceId }
  /** Wait until running work has left enough memory of a device, or until a link to it carries no bytes of others. */
  | {
      readonly kind: "hold";
      readonly worker_id: WorkerId;
      readonly device_id: string;
      readonly until: "memory" | "link";
      /** Models whose work is in the way. */
      readonly behind: readonly ModelId[];
    }
  /** Nothing can be done at this moment, nor does waiting help. */
  | { readonly kind: "cannot_now"; readonly code: ErrorCode }
  /** Nothing will fit until the cluster itself changes. */
  | { readonly kind: "cannot_ever"; readonly code: ErrorCode };

export interface StartTarget {
  readonly worker_id: WorkerId;
  readonly device_id: string;
  /** Farthest tier that bytes have to come from. */
  readonly tier: Tier;
  /** From the start of the load until the instance is ready. */
  readonly estimate_ms: number;
  /** Of that, behind the loads of others. */
  readonly queued_ms: number;
  /** Until the last byte is in host memory; 0 where all are. */
  readonly arrival_ms: number;
  /** Other instances of its host load or work. */
  readonly is_beside: boolean;
  /** The parked instance to bring back; null for a new one. */
  readonly parked: InstanceId | null;
}

/** All generations of a running instance continue on another device. */
export interface Move {
  readonly instance_id: InstanceId;
  readonly worker_id: WorkerId;
  readonly device_id: string;
  /** The running instance of the same model that takes them in; null: one is started there first. */
  readonly into: InstanceId | null;
  readonly estimate_ms: number;
}

export interface Decision {
  readonly action: Action;
  /** Until the request is expected to be served; null where nothing is known. */
  readonly estimate_ms: number | null;
  /** For people: logs, errors, explanations. */
  readonly reason: string;
  /** At most `limits.explained_candidates`, the cheapest first. */
  readonly losers: readonly Loser[];
}

/** As many as a decision names: the cheapest, in an order that does not depend on how they were found. */
export function shortened(losers: readonly Loser[]): readonly Loser[] {
  const known = ({ estimate_ms }: Loser) => estimate_ms ?? Number.MAX_VALUE;
  const order = (a: Loser, b: Loser) =>
    known(a) - known(b) ||
    compareText(a.worker_id, b.worker_id) ||
    compareText(a.device_id ?? "", b.device_id ?? "") ||
    compareText(a.instance_id ?? "", b.instance_id ?? "");
  return losers.toSorted(order).slice(0, limits.explained_candidates);
}
