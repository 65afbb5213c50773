/**
 * A StateStore in memory with the guarantees of the real ones: every operation is done in one step, so it is as
 * atomic as a transaction. For tests of what stands on the port; held to the same contract suite.
 * Longer than other files because the port is one: some thirty small operations over the same tables.
 */
import type {
  BeginResult,
  Clock,
  ClusterChanges,
  ClusterSnapshot,
  CreateInstanceResult,
  EpochClaim,
  GenerationMove,
  InstanceMove,
  LastReport,
  MigrationMove,
  NewAdapter,
  NewGeneration,
  NewInstance,
  NewMigration,
  NewResumable,
  ObservedEstimate,
  Retention,
  StateStore,
  StoredGeneration,
  TokenBatch,
} from "../../gateway/ports.ts";
import {
  adapterExists,
  checkBase,
  nameIsTaken,
  tooManyAdapters,
  wouldOrphan,
} from "../../gateway/store/adapters.ts";
import { scalingOf } from "../../gateway/store/models.ts";
import { assertLegal, statesBefore } from "../../gateway/store/moves.ts";
import { storableMessage, storableProblems } from "../../gateway/store/text.ts";
import type { DeployRequest } from "../../schema/api/admin.ts";
import type {
  HeartbeatRequest,
  HeartbeatResponse,
  RegisterRequest,
} from "../../schema/cluster/membership.ts";
import type {
  AdapterRow,
  CheckpointRow,
  DeviceRow,
  EstimateRow,
  EventRow,
  GenerationRow,
  InstanceRow,
  LeaseRow,
  MigrationRow,
  ModelRow,
  PlacementRow,
  WorkerRow,
} from "../../schema/db/tables.ts";
import { SllmError, type WireError } from "../../schema/error.ts";
import { formatAdapterId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import {
  type EventEntity,
  generationMoves,
  instanceMoves,
  tiers,
  type WorkerState,
  workerMoves,
} from "../../schema/vocab.ts";
import { MemoryMigrations, MemoryRecords, newGenerationRow } from "./memory-generations.ts";

const estimateOrder = ["quantity", "worker_id", "model_id", "device_kind", "detail"] as const;

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

export class MemoryStateStore implements StateStore {
  /** While true, every operation throws `state_unavailable`, as a database does that is away. */
  isAway = false;
  /** How often each operation was asked for. */
  readonly calls = new Map<keyof StateStore, number>();

  readonly #clock: Pick<Clock, "wallMs">;
  readonly #checkpoints = new Map<string, CheckpointRow>();
  readonly #models = new Map<string, Mutable<ModelRow>>();
  readonly #adapters = new Map<string, AdapterRow>();
  readonly #workers = new Map<string, Mutable<WorkerRow>>();
  readonly #devices = new Map<string, Mutable<DeviceRow>>();
  readonly #placements = new Map<string, PlacementRow>();
  readonly #instances = new Map<string, Mutable<InstanceRow>>();
  readonly #generations = new Map<string, Mutable<GenerationRow>>();
  readonly #estimates = new Map<string, EstimateRow>();
  readonly #leases = new Map<string, LeaseRow>();
  readonly #records: MemoryRecords;
  readonly #migrations: MemoryMigrations;
  readonly #events: EventRow[] = [];

  /** The clock dates rows and events; the tests' own where time matters. */
  constructor(clock: Pick<Clock, "wallMs"> = { wallMs: () => Date.now() }) {
    this.#clock = clock;
    this.#records = new MemoryRecords(this.#generations, (id, from, to, reason) =>
      this.#log("generation", id, from, to, reason),
    );
    this.#migrations = new MemoryMigrations(
      () => this.#now(),
      (id, from, to, reason) => this.#log("migration", id, from, to, reason),
    );
  }

  ping(): Promise<void> {
    return this.#do("ping", () => undefined);
  }

  deployModel(
    request: DeployRequest,
    resolved: { context_tokens: number; keep_alive_ms: number },
  ): Promise<ModelRow> {
    return this.#do("deployModel", () => {
      const { id, manifest } = request;
      const before = this.#models.get(id);
      if (this.#adapters.has(id)) throw nameIsTaken(id);
      if (before !== undefined && !request.replace) {
        throw new SllmError("model_exists", `A model named '${id}' exists already.`, { param: "id" });
      }
      const { digest } = manifest;
      if (!this.#checkpoints.has(digest)) {
        this.#checkpoints.set(digest, { digest, manifest, created_at: this.#now() });
        this.#log("checkpoint", digest, null, "known", "deployed");
      }
      const { slots, deterministic = false, kv_tokens = null } = request.settings;
      if (before !== undefined && (before.checkpoint !== digest || deterministic)) {
        const orphans = this.#adaptersOf(id).length;
        if (orphans > 0) throw wouldOrphan(id, orphans);
      }
      const created_at = before?.created_at ?? this.#now();
      const row = {
        model_id: id,
        state: "active",
        checkpoint: digest,
        slots,
        kv_tokens,
        deterministic,
        ...resolved,
        ...scalingOf(request.settings),
        created_at,
      } as const;
      this.#models.set(id, row);
      this.#log("model", id, before?.state ?? null, "active", before === undefined ? "deployed" : "replaced");
      return row;
    });
  }

  deleteModel(model_id: string): Promise<boolean> {
    return this.#do("deleteModel", () => {
      const model = this.#models.get(model_id);
      if (model?.state === "active") {
        model.state = "deleting";
        this.#log("model", model_id, "active", "deleting", "deleted");
      }
      return model !== undefined;
    });
  }

  purgeModel(model_id: string): Promise<boolean> {
    return this.#do("purgeModel", () => {
      if (this.#models.get(model_id)?.state !== "deleting") return false;
      if (this.#live().some((i) => i.model_id === model_id)) return false;
      this.#models.delete(model_id);
      for (const { name } of this.#adaptersOf(model_id))
        this.#adapters.delete(formatAdapterId(model_id, name));
      this.#log("model", model_id, "deleting", "removed", "purged");
      return true;
    });
  }

  getModel(model_id: string): Promise<{ model: ModelRow; checkpoint: CheckpointRow } | null> {
    return this.#do("getModel", () => {
      const model = this.#models.get(model_id);
      return model === undefined ? null : { model, checkpoint: this.#checkpointOf(model) };
    });
  }

  listModels(): Promise<{ model: ModelRow; checkpoint: CheckpointRow }[]> {
    return this.#do("listModels", () =>
      byKey(this.#models).map((model) => ({ model, checkpoint: this.#checkpointOf(model) })),
    );
  }

  registerWorker(report: RegisterRequest): Promise<void> {
    return this.#do("registerWorker", () => {
      const { worker_id, incarnation, state, url, version, links } = report;
      const problems = storableProblems(report.problems);
      const before = this.#workers.get(worker_id);
      if (before !== undefined && !mayBecome(before.state, state)) {
        throw new SllmError("state_conflict", `A worker cannot register as '${state}'.`, { param: "state" });
      }
      if (report.again === true && before !== undefined && before.incarnation !== incarnation) {
        throw new SllmError("stale_epoch", `Another process has taken the place of worker ${worker_id}.`);
      }
      const created_at = before?.created_at ?? this.#now();
      const last_heartbeat_at = this.#now();
      const fields = {
        incarnation,
        state,
        url,
        version,
        links,
        problems,
        heartbeat_sequence: -1,
        last_heartbeat_at,
        created_at,
      };
      this.#workers.set(worker_id, { worker_id, ...fields });
      if (before?.state !== state) this.#log("worker", worker_id, before?.state ?? null, state, "registered");
      for (const instance of this.#live()) {
        if (instance.worker_id !== worker_id || instance.incarnation === incarnation) continue;
        this.#end(instance, "gone", "worker_restarted", null);
      }
      this.#mergePlacements(report);
      this.#writeDevices(report);
    });
  }

  addAdapter(wanted: NewAdapter): Promise<AdapterRow> {
    return this.#do("addAdapter", () => {
      const { base: _, replace, ...fields } = wanted;
      const { model_id, name } = wanted;
      const id = formatAdapterId(model_id, name);
      checkBase(this.#models.get(model_id), wanted);
      if (this.#models.has(id)) throw nameIsTaken(id);
      const before = this.#adapters.get(id);
      if (before !== undefined && !replace) throw adapterExists(id);
      if (before === undefined && this.#adaptersOf(model_id).length >= limits.model_adapters) {
        throw tooManyAdapters(model_id);
      }
      const row = { ...fields, created_at: before?.created_at ?? this.#now() };
      this.#adapters.set(id, row);
      const reason = before === undefined ? "added" : "replaced";
      this.#log("adapter", id, before === undefined ? null : "active", "active", reason);
      return row;
    });
  }

  removeAdapter(model_id: string, name: string): Promise<boolean> {
    return this.#do("removeAdapter", () => {
      const id = formatAdapterId(model_id, name);
      if (!this.#adapters.delete(id)) return false;
      this.#log("adapter", id, "active", "removed", "removed");
      return true;
    });
  }

  #adaptersOf(model_id: string): AdapterRow[] {
    return byKey(this.#adapters).filter((adapter) => adapter.model_id === model_id);
  }

  heartbeat(report: HeartbeatRequest): Promise<HeartbeatResponse> {
    return this.#do("heartbeat", () => {
      const worker = this.#workers.get(report.worker_id);
      if (worker?.incarnation !== report.incarnation || !mayBecome(worker.state, report.state)) {
        return { known: false, release: [], deployed: [] };
      }
      const deployed = this.#deployedOf(report);
      if (report.sequence <= worker.heartbeat_sequence) return { known: true, release: [], deployed };
      if (worker.state !== report.state) {
        this.#log("worker", worker.worker_id, worker.state, report.state, "reported");
      }
      worker.state = report.state;
      worker.heartbeat_sequence = report.sequence;
      worker.last_heartbeat_at = this.#now();
      worker.links = report.links;
      worker.problems = storableProblems(report.problems);
      this.#mergePlacements(report);
      return { known: true, release: this.#mergeInstances(report), deployed };
    });
  }

  #deployedOf(report: HeartbeatRequest): string[] {
    const named = new Set(
      [...this.#models.values(), ...this.#adapters.values()].map((one) => one.checkpoint),
    );
    const reported = new Set(report.placements.map((p) => p.checkpoint));
    return [...reported].filter((digest) => named.has(digest)).sort();
  }

  expireWorkers(seen: readonly LastReport[]): Promise<string[]> {
    return this.#do("expireWorkers", () => {
      const wasSeen = (w: WorkerRow) =>
        seen.some(
          ({ worker_id, incarnation, heartbeat_sequence }) =>
            worker_id === w.worker_id &&
            incarnation === w.incarnation &&
            heartbeat_sequence === w.heartbeat_sequence,
        );
      const silent = byKey(this.#workers).filter(
        (w) => (w.state === "ready" || w.state === "draining") && wasSeen(w),
      );
      for (const worker of silent) {
        this.#log("worker", worker.worker_id, worker.state, "lost", "lease_expired");
        worker.state = "lost";
      }
      const error = { code: "worker_unavailable", message: "The worker stopped reporting." } as const;
      for (const instance of this.#live()) {
        const state = this.#workers.get(instance.worker_id)?.state;
        if (state === "lost" || state === "gone") this.#end(instance, "failed", "worker_lost", error);
      }
      return silent.map((worker) => worker.worker_id);
    });
  }

  snapshot(): Promise<ClusterSnapshot> {
    return this.#do("snapshot", () => this.#tables());
  }

  /** Everything, every time, which the port allows. */
  changes(): Promise<ClusterChanges> {
    return this.#do("changes", () => ({
      ...this.#tables(),
      mark: 0,
      isWhole: true,
      read_at: this.#now(),
      holders: [...this.#workers.keys()],
      leases: byKey(this.#leases),
    }));
  }

  #tables(): ClusterSnapshot {
    return {
      workers: byKey(this.#workers),
      devices: byKey(this.#devices),
      placements: [...this.#placements.values()].sort(byTier),
      instances: this.#live().sort(byCreation),
      models: byKey(this.#models),
      adapters: byKey(this.#adapters),
    };
  }

  holdLease(name: string, holder: string, seen: LeaseRow | null): Promise<LeaseRow | null> {
    return this.#do("holdLease", () => {
      const before = this.#leases.get(name);
      if (before?.epoch !== seen?.epoch || before?.beat !== seen?.beat) return null;
      const epoch = before?.holder === holder ? before.epoch : (before?.epoch ?? 0) + 1;
      const lease = { name, holder, epoch, beat: (before?.beat ?? 0) + 1 };
      this.#leases.set(name, lease);
      return lease;
    });
  }

  releaseLease({ name, holder, epoch }: LeaseRow): Promise<void> {
    return this.#do("releaseLease", () => {
      const held = this.#leases.get(name);
      if (held?.holder !== holder || held.epoch !== epoch) return;
      this.#leases.set(name, { ...held, holder: "", beat: held.beat + 1 });
    });
  }

  createInstance(wanted: NewInstance): Promise<CreateInstanceResult> {
    return this.#do("createInstance", () => {
      const refuse = (reason: "conflict" | "no_memory" | "worker_not_ready" | "model_not_active") =>
        ({ ok: false, reason }) as const;
      const model = this.#models.get(wanted.model_id);
      if (model?.state !== "active") return refuse("model_not_active");
      if (model.checkpoint !== wanted.checkpoint) return refuse("conflict");
      const live = this.#live().filter((i) => i.model_id === wanted.model_id).length;
      if (live > wanted.expected_live) return refuse("conflict");
      const worker = this.#workers.get(wanted.worker_id);
      if (worker?.state !== "ready") return refuse("worker_not_ready");
      const device = this.#devices.get(`${wanted.worker_id}/${wanted.device_id}`);
      if (device === undefined || device.memory_bytes - device.reserved_bytes < wanted.memory_bytes) {
        return refuse("no_memory");
      }
      device.reserved_bytes += wanted.memory_bytes;
      const { expected_live: _, ...fields } = wanted;
      const instance: InstanceRow = {
        kv_tokens: null,
        deterministic: false,
        adapter_bytes: 0,
        ...fields,
        incarnation: worker.incarnation,
        state: "loading",
        fingerprint: null,
        error_code: null,
        error_message: null,
        created_at: this.#now(),
        ready_at: null,
        last_used_at: null,
        ended_at: null,
      };
      this.#instances.set(instance.instance_id, { ...instance });
      this.#log("instance", instance.instance_id, null, "loading", "created");
      return { ok: true, instance } as const;
    });
  }

  moveInstance(move: InstanceMove): Promise<boolean> {
    return this.#do("moveInstance", () => {
      assertLegal("instance", instanceMoves, move.from, move.to);
      const instance = this.#instances.get(move.instance_id);
      if (instance === undefined || !move.from.includes(instance.state)) return false;
      if (move.to === "gone" || move.to === "failed") {
        this.#end(instance, move.to, move.reason, move.error ?? null);
        return true;
      }
      if (move.memory_bytes !== undefined && !this.#rebook(instance, move.memory_bytes)) return false;
      const loaded = instance.state === "loading" || instance.state === "parked";
      if (move.to === "ready" && loaded) instance.ready_at = this.#now();
      this.#log("instance", instance.instance_id, instance.state, move.to, move.reason);
      instance.state = move.to;
      return true;
    });
  }

  #rebook(instance: InstanceRow, memory_bytes: number): boolean {
    const device = this.#devices.get(`${instance.worker_id}/${instance.device_id}`);
    const more = memory_bytes - instance.memory_bytes;
    if (device === undefined || (more > 0 && device.memory_bytes - device.reserved_bytes < more))
      return false;
    device.reserved_bytes += more;
    instance.memory_bytes = memory_bytes;
    return true;
  }

  touchInstance(instance_id: string, idle_ms: number): Promise<void> {
    return this.#do("touchInstance", () => {
      const instance = this.#instances.get(instance_id);
      if (instance === undefined) return;
      instance.last_used_at = new Date(
        Math.max(this.#clock.wallMs() - idle_ms, instance.last_used_at?.getTime() ?? 0),
      );
    });
  }

  endedInstances(limit: number): Promise<InstanceRow[]> {
    const endMs = (instance: InstanceRow) => instance.ended_at?.getTime() ?? 0;
    return this.#do("endedInstances", () =>
      [...this.#instances.values()]
        .filter((i) => i.ended_at !== null)
        .sort((a, b) => endMs(b) - endMs(a))
        .slice(0, limit),
    );
  }

  insertGenerations(begun: readonly NewGeneration[]): Promise<void> {
    return this.#do("insertGenerations", () => {
      for (const generation of begun) this.#insertGeneration(generation);
    });
  }

  #insertGeneration(begun: NewGeneration): void {
    const { generation_id } = begun;
    if (this.#generations.has(generation_id)) return;
    this.#generations.set(generation_id, newGenerationRow(begun));
    this.#log("generation", generation_id, null, "queued", "arrived");
  }

  beginGeneration(request: NewResumable): Promise<BeginResult> {
    return this.#do("beginGeneration", () => this.#records.begin(request));
  }

  claimGeneration(claim: EpochClaim): Promise<{ won: boolean; row: GenerationRow }> {
    return this.#do("claimGeneration", () => this.#records.claim(claim));
  }

  appendTokens(batches: readonly TokenBatch[]): Promise<string[]> {
    return this.#do("appendTokens", () =>
      batches.filter((batch) => this.#records.append(batch)).map((batch) => batch.generation_id),
    );
  }

  getStored(generation_id: string): Promise<StoredGeneration | null> {
    return this.#do("getStored", () => this.#records.stored(generation_id));
  }

  findKey(tenant: string, key: string): Promise<{ generation_id: string; body_digest: string } | null> {
    return this.#do("findKey", () => this.#records.key(tenant, key));
  }

  unfinishedOfOthers(alive: readonly string[], limit: number): ReturnType<StateStore["unfinishedOfOthers"]> {
    return this.#do("unfinishedOfOthers", () => this.#records.unfinished(alive, limit));
  }

  createMigration(migration: NewMigration): Promise<MigrationRow | null> {
    return this.#do("createMigration", () => this.#migrations.create(migration));
  }

  moveMigration(move: MigrationMove): Promise<boolean> {
    return this.#do("moveMigration", () => this.#migrations.move(move));
  }

  listMigrations(filter: Parameters<StateStore["listMigrations"]>[0]): Promise<MigrationRow[]> {
    return this.#do("listMigrations", () => this.#migrations.list(filter));
  }

  moveGenerations(moves: readonly GenerationMove[]): Promise<string[]> {
    return this.#do("moveGenerations", () => {
      for (const { from, to } of moves) assertLegal("generation", generationMoves, from, to);
      return moves.filter((move) => this.#moveGeneration(move)).map((move) => move.generation_id);
    });
  }

  #moveGeneration(move: GenerationMove): boolean {
    const row = this.#generations.get(move.generation_id);
    if (row === undefined || !move.from.includes(row.state)) return false;
    if (move.epoch !== undefined && row.epoch > move.epoch) return false;
    const { generation_id, from: _, to, reason, error, ...known } = move;
    this.#log("generation", generation_id, row.state, to, reason);
    Object.assign(row, known, { state: to });
    if (error !== undefined) {
      row.error_code = error.code;
      row.error_message = storableMessage(error.message);
    }
    if (to !== "running") row.finished_at = this.#now();
    return true;
  }

  getGeneration(generation_id: string): Promise<GenerationRow | null> {
    return this.#do("getGeneration", () => this.#generations.get(generation_id) ?? null);
  }

  recordEstimates(observed: readonly ObservedEstimate[]): Promise<void> {
    return this.#do("recordEstimates", () => {
      for (const { values, errors, ...key } of observed) {
        const id = estimateOrder.map((name) => key[name]).join("\n");
        const before = this.#estimates.get(id);
        this.#estimates.set(id, {
          ...key,
          values: [...(before?.values ?? []), ...values].slice(-limits.estimate_values),
          errors: [...(before?.errors ?? []), ...errors].slice(-limits.estimate_errors),
          observations: (before?.observations ?? 0) + Math.max(values.length, errors.length),
          updated_at: this.#now(),
        });
      }
    });
  }

  estimates(): Promise<EstimateRow[]> {
    return this.#do("estimates", () => byKey(this.#estimates));
  }

  forget({ older_than_ms, replay_ms, limit }: Retention): Promise<number> {
    return this.#do("forget", () => {
      const records = this.#records.forget(new Date(this.#clock.wallMs() - replay_ms), limit);
      const before_ms = this.#clock.wallMs() - older_than_ms;
      const isOld = (at: Date | null) => at !== null && at.getTime() < before_ms;
      const generations = [...this.#generations.values()]
        .filter((row) => isOld(row.created_at))
        .slice(0, limit);
      for (const { generation_id } of generations) {
        this.#generations.delete(generation_id);
        this.#records.remove(generation_id);
      }
      const migrations = this.#migrations.forget(new Date(before_ms), limit);
      const instances = [...this.#instances.values()].filter((row) => isOld(row.ended_at)).slice(0, limit);
      for (const { instance_id } of instances) this.#instances.delete(instance_id);
      const events = this.#events.slice(0, limit).filter((row) => isOld(row.at));
      this.#events.splice(0, events.length);
      return generations.length + instances.length + events.length + records + migrations;
    });
  }

  listEvents(filter: { entity?: EventEntity; entity_id?: string; limit: number }): Promise<EventRow[]> {
    return this.#do("listEvents", () =>
      this.#events
        .filter((e) => filter.entity === undefined || e.entity === filter.entity)
        .filter((e) => filter.entity_id === undefined || e.entity_id === filter.entity_id)
        .toReversed()
        .slice(0, filter.limit),
    );
  }

  /** Runs one operation; what it returns is a copy, so that no caller sees or makes a later change. */
  async #do<T>(name: keyof StateStore, operation: () => T): Promise<T> {
    this.calls.set(name, (this.calls.get(name) ?? 0) + 1);
    if (this.isAway) throw new SllmError("state_unavailable", "The database does not answer.");
    return structuredClone(operation());
  }

  #now(): Date {
    return new Date(this.#clock.wallMs());
  }

  #live(): Mutable<InstanceRow>[] {
    return [...this.#instances.values()].filter((i) => i.state !== "gone" && i.state !== "failed");
  }

  #checkpointOf(model: ModelRow): CheckpointRow {
    const checkpoint = this.#checkpoints.get(model.checkpoint);
    if (checkpoint === undefined) throw new Error(`model ${model.model_id} has no checkpoint`);
    return checkpoint;
  }

  #end(instance: Mutable<InstanceRow>, to: "gone" | "failed", reason: string, error: WireError | null): void {
    this.#log("instance", instance.instance_id, instance.state, to, reason);
    if (instance.state !== "failed") {
      const device = this.#devices.get(`${instance.worker_id}/${instance.device_id}`);
      if (device !== undefined) device.reserved_bytes -= instance.memory_bytes;
    }
    instance.state = to;
    instance.ended_at ??= this.#now();
    if (error === null) return;
    instance.error_code = error.code;
    instance.error_message = storableMessage(error.message);
  }

  /** Ends what the worker reports ended; returns what it should release. */
  #mergeInstances(report: HeartbeatRequest): string[] {
    const reported = new Map(report.instances.map((i) => [i.instance_id, i]));
    for (const { instance_id, state, error } of reported.values()) {
      const noted = this.#instances.get(instance_id);
      if (state !== "failed" || error === null || noted?.state !== "failed") continue;
      if (noted.worker_id !== report.worker_id) continue;
      noted.error_code = error.code;
      noted.error_message = storableMessage(error.message);
    }
    for (const instance of this.#live()) {
      if (instance.worker_id !== report.worker_id) continue;
      const said = reported.get(instance.instance_id);
      if (said?.state === "failed") this.#end(instance, "failed", "reported", said.error);
      else if (said?.state === "gone") this.#end(instance, "gone", "reported", said.error);
      else if (report.state === "gone") this.#end(instance, "gone", "worker_gone", null);
      else if (said !== undefined) instance.fingerprint = said.fingerprint ?? null;
    }
    const live = this.#live().filter((i) => i.worker_id === report.worker_id);
    return [...reported.keys()].filter((id) => !live.some((i) => i.instance_id === id));
  }

  #writeDevices(report: RegisterRequest): void {
    const { worker_id } = report;
    for (const [key, device] of this.#devices) if (device.worker_id === worker_id) this.#devices.delete(key);
    for (const { device_id, kind, memory_bytes, repacks = false } of report.devices) {
      const reserved_bytes = this.#live()
        .filter((i) => i.worker_id === worker_id && i.device_id === device_id)
        .reduce((sum, i) => sum + i.memory_bytes, 0);
      const memory = Math.max(memory_bytes, reserved_bytes);
      const row = { worker_id, device_id, kind, memory_bytes: memory, reserved_bytes, repacks };
      this.#devices.set(`${worker_id}/${device_id}`, row);
    }
  }

  #mergePlacements(report: RegisterRequest | HeartbeatRequest): void {
    const { worker_id } = report;
    const keys = new Set<string>();
    for (const { checkpoint, tier, state, bytes_present } of report.placements) {
      const key = `${worker_id}/${checkpoint}/${tier}`;
      keys.add(key);
      const before = this.#placements.get(key);
      if (before?.state === state && before.bytes_present === bytes_present) continue;
      if (before?.state !== state) this.#log("placement", key, before?.state ?? null, state, "reported");
      this.#placements.set(key, {
        worker_id,
        checkpoint,
        tier,
        state,
        bytes_present,
        updated_at: this.#now(),
      });
    }
    for (const [key, placement] of this.#placements) {
      if (placement.worker_id !== worker_id || keys.has(key)) continue;
      this.#placements.delete(key);
      this.#log("placement", key, placement.state, "absent", "reported");
    }
  }

  #log(
    entity: EventEntity,
    entity_id: string,
    from_state: string | null,
    to_state: string,
    reason: string,
  ): void {
    const event_id = (this.#events.at(-1)?.event_id ?? 0) + 1;
    this.#events.push({ event_id, at: this.#now(), entity, entity_id, from_state, to_state, reason });
  }
}

function byKey<T>(table: ReadonlyMap<string, T>): T[] {
  return [...table.keys()].sort().flatMap((key) => table.get(key) ?? []);
}

/** By worker and checkpoint, then nearest tier first. */
function byTier(a: PlacementRow, b: PlacementRow): number {
  return (
    a.worker_id.localeCompare(b.worker_id) ||
    a.checkpoint.localeCompare(b.checkpoint) ||
    tiers.indexOf(a.tier) - tiers.indexOf(b.tier)
  );
}

function byCreation(a: InstanceRow, b: InstanceRow): number {
  return a.created_at.getTime() - b.created_at.getTime() || a.instance_id.localeCompare(b.instance_id);
}

function mayBecome(from: WorkerState, to: WorkerState): boolean {
  return statesBefore(workerMoves, to).includes(from);
}
