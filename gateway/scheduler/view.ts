/** What the scheduler sees: one moment of the cluster as plain data. No methods with effects, no clock. */
import type { ErrorCode } from "../../schema/codes.ts";
import type { CheckpointDigest, InstanceId, ModelId, WorkerId } from "../../schema/ids.ts";
import type { DeviceKind, InstanceState, Tier } from "../../schema/vocab.ts";

export interface DeviceView {
  readonly worker_id: WorkerId;
  readonly device_id: string;
  readonly kind: DeviceKind;
  readonly memory_bytes: number;
  /** Booked by instances that are not gone or failed. */
  readonly reserved_bytes: number;
}

export interface WorkerView {
  readonly worker_id: WorkerId;
  /** False while it drains, is lost or said goodbye: nothing new goes there. */
  readonly accepting: boolean;
}

/** Bytes of a checkpoint that can be read from one tier of one worker. */
export interface SourceView {
  readonly worker_id: WorkerId;
  readonly checkpoint: CheckpointDigest;
  readonly tier: Tier;
  readonly bytes_present: number;
}

/** Work that is queued on a link of a worker: `disk`, or `device:<device_id>`. */
export interface LinkView {
  readonly worker_id: WorkerId;
  readonly link: string;
  readonly queued_ms: number;
  /** Of recent loads; null when none has gone over it yet. */
  readonly bandwidth_bytes_per_s: number | null;
}

/** Why a worker cannot use a checkpoint that lies there, or (with null) its store. */
export interface ProblemView {
  readonly worker_id: WorkerId;
  readonly checkpoint: CheckpointDigest | null;
  readonly code: ErrorCode;
  readonly message: string;
}

export interface InstanceView {
  readonly instance_id: InstanceId;
  readonly model_id: ModelId;
  readonly checkpoint: CheckpointDigest;
  readonly worker_id: WorkerId;
  readonly device_id: string;
  readonly state: InstanceState;
  readonly slots: number;
  readonly memory_bytes: number;
}

export interface ClusterView {
  readonly workers: readonly WorkerView[];
  readonly devices: readonly DeviceView[];
  readonly sources: readonly SourceView[];
  readonly links: readonly LinkView[];
  readonly problems: readonly ProblemView[];
  readonly instances: readonly InstanceView[];
  /** Generations that hold or wait for each instance; absent means none. */
  readonly in_flight: ReadonlyMap<InstanceId, number>;
  /** Wall time of each instance's last use or start; absent means never. */
  readonly last_used_ms: ReadonlyMap<InstanceId, number>;
}

/** What is to be placed. */
export interface PlacementRequest {
  readonly model_id: ModelId;
  readonly checkpoint: CheckpointDigest;
  readonly weights_bytes: number;
  /** Memory that a new instance of the model books. */
  readonly memory_bytes: number;
  /** Workers and instances that failed this request before. */
  readonly avoid: { readonly workers: ReadonlySet<WorkerId>; readonly instances: ReadonlySet<InstanceId> };
}
