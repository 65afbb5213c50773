/** What the scheduler answers: one action with its reason and the candidates that lost. */
import type { ErrorCode } from "../../schema/codes.ts";
import type { InstanceId, WorkerId } from "../../schema/ids.ts";
import type { Tier } from "../../schema/vocab.ts";

/** A possibility that was looked at and not taken. */
export interface Loser {
  readonly worker_id: WorkerId;
  readonly device_id: string | null;
  readonly instance_id: InstanceId | null;
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
  /** A running instance without a free slot: its engine queues. */
  | { readonly kind: "queue"; readonly instance_id: InstanceId }
  /** Nothing fits at this moment. `holds`: waiting helps, running work will end. */
  | { readonly kind: "cannot_now"; readonly code: ErrorCode; readonly holds: boolean }
  /** Nothing will fit until the cluster itself changes. */
  | { readonly kind: "cannot_ever"; readonly code: ErrorCode };

export interface StartTarget {
  readonly worker_id: WorkerId;
  readonly device_id: string;
  /** Farthest tier that bytes have to come from. */
  readonly tier: Tier;
  readonly estimate_ms: number;
  /** The parked instance to bring back; null for a new one. */
  readonly parked: InstanceId | null;
}

export interface Decision {
  readonly action: Action;
  /** For people: logs, errors, explanations. */
  readonly reason: string;
  readonly losers: readonly Loser[];
}
