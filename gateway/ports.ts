/**
 * The only ways in which the gateway touches the world. Implementations are bound in gateway/main and, for tests
 * and the simulator, by whoever composes; nothing else in the gateway names a runtime, a clock or a database.
 * Longer than other files because it is the list of all of them.
 */
import type { DeployRequest, ExplainedDecision, Timeline } from "../schema/api/admin.ts";
import type {
  AttachEvent,
  AttachQuery,
  CancelQuery,
  CancelResponse,
  GenerationRecord,
} from "../schema/cluster/attach.ts";
import type { EmbedRequest } from "../schema/cluster/embed.ts";
import type {
  DoneEvent,
  GenerateRequest,
  GenerationEvent,
  GenerationHop,
  GenerationSettings,
  TokensEvent,
} from "../schema/cluster/generate.ts";
import type { LoadEvent, LoadRequest } from "../schema/cluster/instances.ts";
import type { LoadsQuery, LoadTrace } from "../schema/cluster/loads.ts";
import type { HeartbeatRequest, HeartbeatResponse, RegisterRequest } from "../schema/cluster/membership.ts";
import type {
  GoOnRequest,
  HandOverRequest,
  HandOverResponse,
  MoveEvent,
  MoveRequest,
  RunningGeneration,
} from "../schema/cluster/moves.ts";
import type { PreloadOutcome } from "../schema/cluster/preloads.ts";
import type {
  AdapterRow,
  CheckpointRow,
  DeviceRow,
  EstimateRow,
  EventRow,
  GenerationRecordRow,
  GenerationRow,
  InstanceRow,
  LeaseRow,
  MigrationRow,
  ModelRow,
  PlacementRow,
  WorkerRow,
} from "../schema/db/tables.ts";
import type { WireError } from "../schema/error.ts";
import type {
  AdapterName,
  CheckpointDigest,
  GatewayId,
  GenerationId,
  InstanceId,
  MigrationId,
  ModelId,
  WorkerId,
} from "../schema/ids.ts";
import type {
  EventEntity,
  FinishReason,
  GenerationState,
  InstanceState,
  MigrationMethod,
  MigrationState,
} from "../schema/vocab.ts";

export interface Clock {
  /** Wall time for records, milliseconds since 1970. */
  wallMs(): number;
  /** For durations: never goes back. */
  monotonicMs(): number;
  /** Resolves after the delay, or at once when the signal aborts. Never rejects. */
  sleep(delay_ms: number, signal?: AbortSignal): Promise<void>;
  /** Calls once, after the delay; what it returns keeps it from that. For paths where a signal would cost more. */
  after(delay_ms: number, call: () => void): () => void;
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
  /** The process that is meant: another one, later or elsewhere, refuses the call. */
  readonly incarnation: string;
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
  /** Reads a checkpoint into host memory that nobody needs; resolves when the read has begun or was refused. */
  preload(worker: WorkerAddress, checkpoint: CheckpointDigest): Promise<PreloadOutcome>;
  generate(
    worker: WorkerAddress,
    request: GenerateRequest,
    signal: AbortSignal,
  ): AsyncIterable<GenerationEvent>;
  /** As a generation, of vectors; also cancelled as one. */
  embed(worker: WorkerAddress, request: EmbedRequest, signal: AbortSignal): AsyncIterable<GenerationEvent>;
  /** Traces of the worker's last loads, the newest first. */
  loadTraces(worker: WorkerAddress, query: LoadsQuery): Promise<LoadTrace[]>;
  /** Reads a generation that is there, from a token on; `not_found`, `stale_generation` and `generation_lost` beside. */
  attach(
    worker: WorkerAddress,
    generation_id: GenerationId,
    query: AttachQuery,
    signal: AbortSignal,
  ): AsyncIterable<AttachEvent>;
  /** Asks a worker to end when its streams have left; how many run there. */
  drain(worker: WorkerAddress): Promise<number>;
  /** Generations that run there. */
  listGenerations(worker: WorkerAddress): Promise<RunningGeneration[]>;
  /** One that runs there or whose log is kept; null for any other. */
  findGeneration(worker: WorkerAddress, generation_id: GenerationId): Promise<GenerationRecord | null>;
  /** Has its worker send it elsewhere until the signal aborts or it is handed over; see schema/cluster/moves.ts. */
  moveGeneration(
    worker: WorkerAddress,
    generation_id: GenerationId,
    request: MoveRequest,
    signal: AbortSignal,
  ): AsyncIterable<MoveEvent>;
  handOver(
    worker: WorkerAddress,
    generation_id: GenerationId,
    request: HandOverRequest,
  ): Promise<HandOverResponse>;
  /** Lets one that stands still for a hand-over go on where it is. */
  goOn(worker: WorkerAddress, generation_id: GenerationId, request: GoOnRequest): Promise<void>;
  /** Ends a generation; with an epoch, also any that would begin there with a lower one. */
  cancel(
    worker: WorkerAddress,
    generation_id: GenerationId,
    query?: CancelQuery,
  ): Promise<Pick<CancelResponse, "cancelled" | "moved">>;
}

/** Everything the scheduler and the lists of the admin API look at, read in one go. Ended instances are left out. */
export interface ClusterSnapshot {
  readonly workers: readonly WorkerRow[];
  readonly devices: readonly DeviceRow[];
  readonly placements: readonly PlacementRow[];
  readonly instances: readonly InstanceRow[];
  readonly models: readonly ModelRow[];
  readonly adapters: readonly AdapterRow[];
}

/** Where a read of the cluster ended, for the next one to go on from. Says nothing to anybody but the store. */
export type ReadMark = number;

/** What is new since a mark; everything that is there when the read began without one. */
export interface ClusterChanges {
  readonly mark: ReadMark;
  /** True: this is all there is. False: what is not named here is as it was. */
  readonly isWhole: boolean;
  /** The database's clock at the read. Only differences to other times of the database mean anything. */
  readonly read_at: Date;
  readonly workers: readonly WorkerRow[];
  /** Workers whose devices and placements follow, all of them; what is known of these workers is over. */
  readonly holders: readonly WorkerId[];
  readonly devices: readonly DeviceRow[];
  readonly placements: readonly PlacementRow[];
  /** Ended ones too, where they ended since the mark. */
  readonly instances: readonly InstanceRow[];
  readonly models: readonly ModelRow[];
  /** Of these models, all of them. */
  readonly adapters: readonly AdapterRow[];
  /** All there are. */
  readonly leases: readonly LeaseRow[];
}

/** What somebody saw of a silent worker; as long as that is so, it has not reported. */
export type LastReport = Pick<WorkerRow, "worker_id" | "incarnation" | "heartbeat_sequence">;

/** Ages from which ended rows are forgotten, and how many of each kind one call removes at most. */
export interface Retention {
  readonly older_than_ms: number;
  /** For how long an ended generation can be told again. */
  readonly replay_ms: number;
  readonly limit: number;
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
  /** Of memory_bytes, for adapters; 0 if left out. */
  readonly adapter_bytes?: number;
  /** Booked on the device until the instance is gone or failed. */
  readonly memory_bytes: number;
  /** Instances of the model that may exist (loading or running) before this one; more means somebody was faster. */
  readonly expected_live: number;
}

/** An adapter that was checked against the model's checkpoint `base`. */
export interface NewAdapter {
  readonly model_id: ModelId;
  readonly name: AdapterName;
  readonly base: CheckpointDigest;
  readonly checkpoint: CheckpointDigest;
  readonly rank: number;
  readonly weights_bytes: number;
  /** Take the place of one of this name. */
  readonly replace: boolean;
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
  readonly owner?: GatewayId;
  /** As far as they are known then. */
  readonly decisions?: readonly ExplainedDecision[];
}

export interface GenerationMove {
  readonly generation_id: GenerationId;
  /** Of who says it: nothing moves in the name of an epoch that is over. Left out: whatever the epoch. */
  readonly epoch?: number;
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
  readonly decisions?: readonly ExplainedDecision[];
}

/** A request that may be read again, to be written down before anybody works on it. */
export interface NewResumable {
  readonly generation_id: GenerationId;
  readonly model_id: ModelId;
  readonly created_at_ms: number;
  readonly owner: GatewayId;
  readonly tenant: string;
  /** How long it is kept without a reader; null: it runs to its end without one. */
  readonly resume_ms: number | null;
  readonly settings: GenerationSettings;
  readonly idempotency: { readonly key: string; readonly body_digest: string } | null;
}

/** `begun` is false where the tenant's key stands for a generation already. */
export type BeginResult =
  | { readonly begun: true }
  | { readonly begun: false; readonly generation_id: GenerationId; readonly body_digest: string };

/** A new owner for a generation that was seen with this epoch. */
export interface EpochClaim {
  readonly generation_id: GenerationId;
  readonly model_id: ModelId;
  readonly created_at_ms: number;
  /** Of the row; the row is missing: anything. */
  readonly seen_epoch: number;
  /** Above it. */
  readonly epoch: number;
  readonly owner: GatewayId;
  /** Where it runs from now on, of a planned move; as it was if left out. */
  readonly at?: { readonly worker_id: WorkerId; readonly instance_id: InstanceId };
}

/** What became known of a resumable generation since the last batch. */
export interface TokenBatch {
  readonly generation_id: GenerationId;
  readonly epoch: number;
  readonly worker_id: WorkerId;
  readonly instance_id: InstanceId;
  readonly hops: readonly GenerationHop[];
  /** null: unknown, or written before. */
  readonly prompt: readonly number[] | null;
  /** Consecutive, after those of the batch before; perhaps none. */
  readonly events: readonly TokensEvent[];
  readonly done: DoneEvent | null;
}

/** All that any gateway needs to tell a generation again, or to go on with it. */
export interface StoredGeneration {
  readonly row: GenerationRow;
  readonly record: GenerationRecordRow;
  /** In their order, from the first token on. */
  readonly events: readonly TokensEvent[];
}

export interface NewMigration {
  readonly migration_id: MigrationId;
  readonly generation_id: GenerationId;
  readonly model_id: ModelId;
  readonly owner: GatewayId;
  readonly from_worker_id: WorkerId;
  readonly from_instance_id: InstanceId;
  readonly to_worker_id: WorkerId;
  readonly to_instance_id: InstanceId | null;
  readonly reason: string;
}

/** A step of a migration; what is left out stays as it is. */
export interface MigrationMove {
  readonly migration_id: MigrationId;
  /** The same state again notes progress only. */
  readonly from: readonly MigrationState[];
  readonly to: MigrationState;
  readonly reason: string;
  readonly owner?: GatewayId;
  readonly to_instance_id?: InstanceId;
  readonly epoch?: number;
  readonly method?: MigrationMethod;
  readonly rounds?: number;
  readonly tokens?: number;
  readonly bytes?: number;
  readonly timings_ms?: Readonly<Record<string, number>>;
  readonly error?: WireError;
}

/**
 * Durable state, shared by all gateways. Every change of a state is guarded (`from` must hold) and writes its
 * `events` row in the same transaction; a move whose guard fails returns false and changes nothing. A database that
 * does not answer throws `state_unavailable`.
 */
export interface StateStore {
  ping(): Promise<void>;

  /**
   * Inserts checkpoint and model in one transaction; `model_exists` unless `replace`, which also revives a deleting one,
   * and for the id of an adapter. `state_conflict` when the model has adapters and would become another one.
   */
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

  /**
   * Gives a model an adapter. Errors: `model_not_found`, `state_conflict` when the model has another checkpoint than
   * `base` by now, `adapter_exists`, `model_exists` when a model has its id, `overloaded` beyond `model_adapters`.
   */
  addAdapter(adapter: NewAdapter): Promise<AdapterRow>;
  /** False when there is none. */
  removeAdapter(model_id: ModelId, name: AdapterName): Promise<boolean>;

  /**
   * A worker (re)appears. A new incarnation ends all live instances of the one before (`gone`) and frees their memory.
   * One that says `again` and has been followed by another is refused: `stale_epoch`.
   */
  registerWorker(report: RegisterRequest): Promise<void>;
  /**
   * Takes a heartbeat in: lease, placements, and instances the worker reports failed or gone. `known` is false for
   * another incarnation; `release` names reported instances that are not live here.
   */
  heartbeat(report: HeartbeatRequest): Promise<HeartbeatResponse>;
  /**
   * Of these workers those that have not reported since become lost, and their live instances failed, like those of
   * workers that were lost before. Returns the ids of the newly lost.
   */
  expireWorkers(silent: readonly LastReport[]): Promise<WorkerId[]>;
  snapshot(): Promise<ClusterSnapshot>;
  /** What changed since an earlier read; null: everything. What is written before the call is in the answer. */
  changes(since: ReadMark | null): Promise<ClusterChanges>;

  /**
   * Takes, keeps or takes over a lease, if it still is as it was seen (null: nobody ever had it). Returns it as it is
   * then; null when somebody was faster.
   */
  holdLease(name: string, holder: string, seen: LeaseRow | null): Promise<LeaseRow | null>;
  /** Gives a lease back, if it is still held in that epoch: the next one need not wait. */
  releaseLease(lease: LeaseRow): Promise<void>;

  createInstance(instance: NewInstance): Promise<CreateInstanceResult>;
  moveInstance(move: InstanceMove): Promise<boolean>;
  /** Notes that the instance was used last so long ago; the time never goes back. */
  touchInstance(instance_id: InstanceId, idle_ms: number): Promise<void>;
  /** Instances that are gone or failed, the last ended first. */
  endedInstances(limit: number): Promise<InstanceRow[]>;

  /** Saying it again changes nothing. */
  insertGenerations(begun: readonly NewGeneration[]): Promise<void>;
  /** One move at most for each generation. Returns those that moved; a guard that fails stops no other's move. */
  moveGenerations(moves: readonly GenerationMove[]): Promise<GenerationId[]>;
  getGeneration(generation_id: GenerationId): Promise<GenerationRow | null>;

  /** Writes row, record and key of a resumable request, all or nothing. */
  beginGeneration(request: NewResumable): Promise<BeginResult>;
  /**
   * Raises the epoch for its new owner if it still is as it was seen and the generation has not ended; a row that
   * is missing is written. Returns whether it did, and the row as it is then.
   */
  claimGeneration(claim: EpochClaim): Promise<{ readonly won: boolean; readonly row: GenerationRow }>;
  /** Adds what became known. Returns the ids whose epoch still is the row's; nothing is written of the others. */
  appendTokens(batches: readonly TokenBatch[]): Promise<GenerationId[]>;
  /** null for a generation that left no record, or whose record is gone. */
  getStored(generation_id: GenerationId): Promise<StoredGeneration | null>;
  /** What a tenant's key stands for. */
  findKey(tenant: string, key: string): Promise<{ generation_id: GenerationId; body_digest: string } | null>;
  /** Unfinished generations of owners that are not among these, with `resume_ms` of those that left a record. */
  unfinishedOfOthers(
    alive: readonly GatewayId[],
    limit: number,
  ): Promise<{ row: GenerationRow; record: Pick<GenerationRecordRow, "tenant" | "resume_ms"> | null }[]>;

  /** null when the stream is on its way already. */
  createMigration(migration: NewMigration): Promise<MigrationRow | null>;
  /** Takes a step, with its event unless it is progress only; false when the guard fails. */
  moveMigration(move: MigrationMove): Promise<boolean>;
  /** Those under way, or all of a generation; the newest first. */
  listMigrations(filter: {
    live?: boolean;
    generation_id?: GenerationId;
    limit: number;
  }): Promise<MigrationRow[]>;

  /** Adds values and errors to what is known of each key; the oldest beyond the limits are forgotten. */
  recordEstimates(observed: readonly ObservedEstimate[]): Promise<void>;
  /** By key. */
  estimates(): Promise<EstimateRow[]>;

  /** Forgets what ended long ago, the oldest first: generations, instances, events. Returns how many rows are gone. */
  forget(retention: Retention): Promise<number>;

  /** Newest first. */
  listEvents(filter: { entity?: EventEntity; entity_id?: string; limit: number }): Promise<EventRow[]>;
}
