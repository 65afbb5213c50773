/**
 * What the scheduler sees: one moment of the cluster. `ClusterFacts` is plain data; `ClusterView` is the same, linked so
 * that a decision looks only at what can matter to it (cluster-index.ts makes one and keeps it up to date). Decisions
 * read it and change nothing.
 */
import type { StandbyReport } from "../../schema/cluster/membership.ts";
import type { ErrorCode } from "../../schema/codes.ts";
import type { CheckpointDigest, InstanceId, ModelId, WorkerId } from "../../schema/ids.ts";
import type { DeviceKind, InstanceState, SchedulingPolicy, Tier } from "../../schema/vocab.ts";
import type { Estimates } from "./estimates.ts";

export interface DeviceView {
  readonly worker_id: WorkerId;
  readonly device_id: string;
  readonly kind: DeviceKind;
  readonly memory_bytes: number;
  /** Booked by instances that are not gone or failed. */
  readonly reserved_bytes: number;
  /** Engines there hold a repacked copy of the weights too. */
  readonly repacks?: boolean;
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

/** Work that is queued on a link of a worker: `disk`, `network`, or the bus of a device, `device:<device_id>`. */
export interface LinkView {
  readonly worker_id: WorkerId;
  readonly link: string;
  readonly queued_ms: number;
  /** Of recent loads or of the worker's own probe; null when neither knows. */
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

/** How an instance is used, as far as this gateway counts it. */
export interface InstanceUsage {
  /** Generations that hold or wait for the instance. */
  readonly in_flight: number;
  /** Prompt and output tokens of them all: what a move would have to compute again. */
  readonly tokens: number;
  /** Wall time of the last use or start; 0 if there was none. */
  readonly last_used_ms: number;
  /** Wall time since which it has not been idle; null when it is. */
  readonly busy_since_ms: number | null;
  /** Wall time at which a load is expected to end; null for unknown. */
  readonly ready_at_ms: number | null;
  /** Wall time at which a load is expected to have its bytes in host memory; null for unknown or none. */
  readonly arrives_at_ms: number | null;
  /** Whether these come from other hosts or from outside; else from the disk. */
  readonly is_fetched?: boolean;
  /** The generations there, as far as this gateway counts them. */
  readonly works: ReadonlySet<WorkView>;
}

/** One generation at work. */
export interface WorkView {
  readonly prompt_tokens: number;
  /** Wall time at which it began with its prompt. */
  readonly begun_ms: number;
  readonly output_tokens: number;
  /** It ends by then. */
  readonly most_tokens: number;
}

export const unused: InstanceUsage = {
  in_flight: 0,
  tokens: 0,
  last_used_ms: 0,
  busy_since_ms: null,
  ready_at_ms: null,
  arrives_at_ms: null,
  works: new Set(),
};

/** From where bytes may come that no tier of a worker holds. Off until such transfers can be carried out. */
export interface RemoteSources {
  readonly peer: boolean;
  readonly origin: boolean;
}

export interface ClusterFacts {
  readonly workers: readonly WorkerView[];
  readonly devices: readonly DeviceView[];
  readonly sources: readonly SourceView[];
  readonly links: readonly LinkView[];
  readonly problems: readonly ProblemView[];
  readonly instances: readonly InstanceView[];
  /** Absent: not used. */
  readonly usage: ReadonlyMap<InstanceId, InstanceUsage>;
  readonly remote: RemoteSources;
}

export interface HostNode {
  readonly worker_id: WorkerId;
  readonly accepting: boolean;
  /** Engine processes in reserve, by the worker's last report; null where it is not known. */
  readonly standby: StandbyReport | null;
  /** Instances that load or are in use. */
  readonly working: number;
  readonly loading: ReadonlySet<InstanceNode>;
  readonly devices: readonly DeviceNode[];
  readonly disk: LinkView | null;
  readonly network: LinkView | null;
}

export interface DeviceNode {
  readonly host: HostNode;
  readonly device_id: string;
  readonly kind: DeviceKind;
  readonly memory_bytes: number;
  readonly reserved_bytes: number;
  readonly repacks: boolean;
  /** Of the reserved bytes those of ready or parked instances without a user that need not be kept. */
  readonly idle_bytes: number;
  /** Name of the link from host memory to it. */
  readonly bus_name: string;
  readonly bus: LinkView | null;
  readonly instances: readonly InstanceNode[];
}

export interface InstanceNode {
  readonly view: InstanceView;
  /** null: the worker does not report such a device any more. */
  readonly device: DeviceNode | null;
  readonly usage: InstanceUsage;
  /** One of those that its model always has: it is not stopped for others, however idle. */
  readonly kept: boolean;
}

/** A host with bytes of a checkpoint, by the tier they lie in. */
export interface HolderNode {
  readonly host: HostNode;
  readonly bytes: Readonly<Record<Tier, number>>;
}

export interface ClusterView {
  /** By their ids; so are the devices of each. */
  readonly hosts: readonly HostNode[];
  readonly device_count: number;
  readonly problems: readonly ProblemView[];
  readonly remote: RemoteSources;
  readonly estimates: Estimates;
  instancesOf(model_id: ModelId): readonly InstanceNode[];
  holdersOf(checkpoint: CheckpointDigest): readonly HolderNode[];
  /** What an instance of a model needs to be started elsewhere; null when the view does not know. */
  weightsOf(checkpoint: CheckpointDigest): number | null;
}

/** Who else waits for a device. */
export interface Rivals {
  /** Other models. */
  readonly models: number;
  /** Requests for these models. */
  readonly requests: number;
}

/** Nobody else waits, or it does not matter. */
export const noRivals: Rivals = { models: 0, requests: 0 };

/** What is to be placed. */
export interface PlacementRequest {
  readonly model_id: ModelId;
  readonly checkpoint: CheckpointDigest;
  readonly weights_bytes: number;
  /** Memory that a new instance of the model books. */
  readonly memory_bytes: number;
  /** Beyond these on a device that repacks; none if left out. */
  readonly repacked_bytes?: number;
  /** Instances of the model that may exist at once. */
  readonly max_instances: number;
  /** Requests for the model that go before this one and have no instance yet. */
  readonly waiting_ahead: number;
  readonly rivals: Rivals;
  /** Expected wait for a slot above which another instance may be started. */
  readonly queue_delay_ms: number;
  /** Workers and instances that failed this request before. */
  readonly avoid: { readonly workers: ReadonlySet<WorkerId>; readonly instances: ReadonlySet<InstanceId> };
  /** Workers that lack the request's adapter; none if left out. */
  readonly unfit?: ReadonlySet<WorkerId>;
  readonly policy: SchedulingPolicy;
  /** The only chance there is: `random` draws with it. */
  readonly seed: number;
  /**
   * Devices that starved models shall have next, by `<worker_id>/<device_id>`: nothing of other models begins there, so
   * that what runs there ends.
   */
  readonly claims: ReadonlyMap<string, ModelId>;
  /** Whether running generations may be moved to make room. */
  readonly may_migrate: boolean;
  /** Wall time of the decision. */
  readonly now_ms: number;
}
