/**
 * The only ways in which the gateway touches the world. Implementations are bound in gateway/main and, for tests
 * and the simulator, by whoever composes; nothing else in the gateway names a runtime, a clock or a database.
 */
import type { DeployRequest, Timeline } from "../schema/api/admin.ts";
import type { EmbedRequest } from "../schema/cluster/embed.ts";
import type { GenerateRequest, GenerationEvent } from "../schema/cluster/generate.ts";
import type { LoadEvent, LoadRequest } from "../schema/cluster/instances.ts";
import type { LoadsQuery, LoadTrace } from "../schema/cluster/loads.ts";
import type { HeartbeatRequest, HeartbeatResponse, RegisterRequest } from "../schema/cluster/membership.ts";
import type {
  CheckpointRow,
  DeviceRow,
  EstimateRow,
  EventRow,
  GenerationRow,
  InstanceRow,
  ModelRow,
  PlacementRow,
  WorkerRow,
} from "../schema/db/tables.ts";
import type { WireError } from "../schema/error.ts";
import type { CheckpointDigest, GenerationId, InstanceId, ModelId, WorkerId } from "../schema/ids.ts";
import type { EventEntity, FinishReason, GenerationState, InstanceState } from "../schema/vocab.ts";

export interface Clock {
  /** Wall time for records, milliseconds since 1970. */
  wallMs(): number;
  /** For durations: never goes back. */
  monotonicMs(): number;
  /** Resolves after the delay, or at once when the signal aborts. Never rejects. */
  sleep(delay_ms: number, signal?: AbortSignal): Promise<void>;
}

export interface Random {
  bytes(count: number): Uint8Array;
}

export type LogFields = Readonly<Record<string, string | number | boolean | null | undefined>>;

/** Structured log lines. Fields hold ids, counts and codes; never prompts, texts or secrets. */
export interface Log {
  info(event: string, fields?: LogFields): void;
  warn(event: string, fields?: LogFields): void;
  error(event: string, fields?: LogFields, cause?: unknown): void;
}

export interface WorkerAddress {
  readonly worker_id: WorkerId;
  readonly url: string;
}

/**
 * Client of the worker API. Streams end by themselves after their last event; failures of the connection are thrown
 * as `worker_unavailable`, refusals with the worker's own code. Aborting the signal closes the connection only.
 */
export interface WorkerClient {
  load(worker: WorkerAddress, request: LoadRequest, signal: AbortSignal): AsyncIterable<LoadEvent>;
  /** Resolves when the instance's process is gone; `not_found` counts as gone. */
  unload(
    worker: WorkerAddress,
    instance_id: InstanceId,
    options: { readonly if_idle: boolean },
  ): Promise<void>;
  /** Parks an idle instance; a load brings it back. Resolves when its memory is free. */
  park(worker: WorkerAddress, instance_id: InstanceId): Promise<void>;
  generate(
    worker: WorkerAddress,
    request: GenerateRequest,
    signal: AbortSignal,
  ): AsyncIterable<GenerationEvent>;
  /** As a generation, of vectors; also cancelled as one. */
  embed(worker: WorkerAddress, request: EmbedRequest, signal: AbortSignal): AsyncIterable<GenerationEvent>;
  /** Traces of the worker's last loads, the newest first. */
  loadTraces(worker: WorkerAddress, query: LoadsQuery): Promise<LoadTrace[]>;
  /** Ends a generation; false when the worker does not run it (any more). */
  cancel(worker: WorkerAddress, generation_id: GenerationId): Promise<boolean>;
}

/** Everything the scheduler and the lists of the admin API look at, read in one go. Ended instances are left out. */
export interface ClusterSnapshot {
  readonly workers: readonly WorkerRow[];
  readonly devices: readonly DeviceRow[];
  readonly placements: readonly PlacementRow[];
  readonly instances: readonly InstanceRow[];
  readonly models: readonly ModelRow[];
}

export interface NewInstance {
  readonly instance_id: InstanceId;
  readonly model_id: ModelId;
  readonly checkpoint: CheckpointDigest;
  readonly worker_id: WorkerId;
  readonly device_id: string;
  readonly context_tokens: number;
  readonly slots: number;
  /** null or left out: a context for each slot. */
  readonly kv_tokens?: number | null;
  readonly deterministic?: boolean;
  /** Booked on the device until the instance is gone or failed. */
  readonly memory_bytes: number;
  /** Instances of the model that may exist (loading or running) before this one; more means somebody was faster. */
  readonly expected_live: number;
}

/** `conflict`: another gateway started one meanwhile. `no_memory`: the device's free bytes do not suffice (any more). */
export type CreateInstanceResult =
  | { readonly ok: true; readonly instance: InstanceRow }
  | {
      readonly ok: false;
      readonly reason: "conflict" | "no_memory" | "worker_not_ready" | "model_not_active";
    };

export interface InstanceMove {
  readonly instance_id: InstanceId;
  readonly from: readonly InstanceState[];
  readonly to: InstanceState;
  readonly reason: string;
  readonly error?: WireError;
  /** What a live instance books from then on; the move fails where more is not free. Unchanged if left out. */
  readonly memory_bytes?: number;
}

export type EstimateKey = Pick<EstimateRow, "quantity" | "worker_id" | "model_id" | "device_kind" | "detail">;

/** What was seen of one quantity, oldest first. Not the same key twice in one call. */
export interface ObservedEstimate extends EstimateKey {
  readonly values: readonly number[];
  /** Relative: 0.1 is a tenth too much or too little. */
  readonly errors: readonly number[];
}

export interface NewGeneration {
  readonly generation_id: GenerationId;
  readonly model_id: ModelId;
  readonly created_at_ms: number;
}

export interface GenerationMove {
  readonly generation_id: GenerationId;
  readonly from: readonly GenerationState[];
  readonly to: GenerationState;
  readonly reason: string;
  readonly worker_id?: WorkerId;
  readonly instance_id?: InstanceId;
  readonly cold_start?: boolean;
  readonly prompt_tokens?: number;
  readonly completion_tokens?: number;
  readonly finish_reason?: FinishReason;
  readonly error?: WireError;
  readonly timeline_ms?: Timeline;
}

/**
 * Durable state, shared by all gateways. Every change of a state is guarded (`from` must hold) and writes its
 * `events` row in the same transaction; a move whose guard fails returns false and changes nothing. A database that
 * does not answer throws `state_unavailable`.
 */
export interface StateStore {
  ping(): Promise<void>;

  /** Inserts checkpoint and model in one transaction; `model_exists` unless `replace`, which also revives a deleting one. */
  deployModel(
    request: DeployRequest,
    resolved: { context_tokens: number; keep_alive_ms: number },
  ): Promise<ModelRow>;
  /** Marks it deleting; false when there is none. */
  deleteModel(model_id: ModelId): Promise<boolean>;
  /** Removes the row of a deleting model without live instances; false when it still has some. */
  purgeModel(model_id: ModelId): Promise<boolean>;
  getModel(model_id: ModelId): Promise<{ model: ModelRow; checkpoint: CheckpointRow } | null>;
  listModels(): Promise<{ model: ModelRow; checkpoint: CheckpointRow }[]>;

  /** A worker (re)appears. A new incarnation ends all live instances of the one before (`gone`) and frees their memory. */
  registerWorker(report: RegisterRequest, now_ms: number): Promise<void>;
  /**
   * Takes a heartbeat in: lease, placements, and instances the worker reports failed or gone. `known` is false for
   * another incarnation; `release` names reported instances that are not live here.
   */
  heartbeat(report: HeartbeatRequest, now_ms: number): Promise<HeartbeatResponse>;
  /** Workers silent for longer than the lease become lost, their live instances failed. Returns their ids. */
  expireWorkers(now_ms: number, lease_ms: number): Promise<WorkerId[]>;
  snapshot(): Promise<ClusterSnapshot>;

  createInstance(instance: NewInstance): Promise<CreateInstanceResult>;
  moveInstance(move: InstanceMove): Promise<boolean>;
  touchInstance(instance_id: InstanceId, now_ms: number): Promise<void>;
  /** Instances that are gone or failed, the last ended first. */
  endedInstances(limit: number): Promise<InstanceRow[]>;

  insertGeneration(generation: NewGeneration): Promise<void>;
  moveGeneration(move: GenerationMove): Promise<boolean>;
  getGeneration(generation_id: GenerationId): Promise<GenerationRow | null>;

  /** Adds values and errors to what is known of each key; the oldest beyond the limits are forgotten. */
  recordEstimates(observed: readonly ObservedEstimate[]): Promise<void>;
  /** By key. */
  estimates(): Promise<EstimateRow[]>;

  /** Newest first. */
  listEvents(filter: { entity?: EventEntity; entity_id?: string; limit: number }): Promise<EventRow[]>;
}
