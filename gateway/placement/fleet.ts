/**
 * The cluster as this gateway knows it: the store's last snapshot, own later changes, and who uses what. Kept
 * fresh by the reconcile loop and after own changes, so that a request for a warm model reads no database.
 * Longer than other files because what is read, changed and used makes one picture.
 */
import type { ModelFacts } from "../../schema/checkpoint/manifest.ts";
import type {
  AdapterRow,
  DeviceRow,
  InstanceRow,
  LeaseRow,
  ModelRow,
  PlacementRow,
  WorkerRow,
} from "../../schema/db/tables.ts";
import type { CheckpointDigest, InstanceId, ModelId, WorkerId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { DeviceKind } from "../../schema/vocab.ts";
import type { Clock, ClusterChanges, ClusterSnapshot, StateStore, WorkerAddress } from "../ports.ts";
import { ClusterIndex, type StandbyOf } from "../scheduler/cluster-index.ts";
import { type Estimates, nominalEstimates } from "../scheduler/estimates.ts";
import type { ClusterView, RemoteSources } from "../scheduler/view.ts";
import { ClusterMirror } from "./cluster-mirror.ts";
import { noRemote, toClusterFacts } from "./cluster-view.ts";
import { InstanceTable, isLiveState } from "./instance-table.ts";
import { type InstanceUse, InstanceUses } from "./instance-uses.ts";

/** What of a checkpoint's manifest is needed all the time; content-addressed, so it never changes. */
export interface CheckpointFacts {
  readonly model: ModelFacts;
  readonly weights_bytes: number;
}

export interface FleetModel {
  readonly row: ModelRow;
  readonly facts: CheckpointFacts;
  /** By their names. */
  readonly adapters: readonly AdapterRow[];
}

interface DeviceAddress {
  readonly worker_id: WorkerId;
  readonly device_id: string;
}

type FleetStore = Pick<StateStore, "changes" | "getModel">;

export class Fleet {
  readonly #store: FleetStore;
  readonly #clock: Pick<Clock, "wallMs">;
  readonly #estimates: Estimates;
  readonly #standbyOf: StandbyOf;
  readonly #remote: RemoteSources;
  readonly #uses: InstanceUses;
  readonly #instances = new InstanceTable();
  readonly #storedUses = new Map<InstanceId, number>();
  readonly #facts = new Map<CheckpointDigest, CheckpointFacts>();
  readonly #listeners: ((model_id?: ModelId) => void)[] = [];
  readonly #mirror = new ClusterMirror();
  #index: ClusterIndex;
  #wasRead = false;
  #wholeRead_ms = Number.NEGATIVE_INFINITY;
  #running: Promise<void> | null = null;
  #queued: Promise<void> | null = null;

  /** The clock must not jump: by it, instances become idle and loads are expected to end. */
  constructor(
    store: FleetStore,
    clock: Pick<Clock, "wallMs">,
    estimates: Estimates = nominalEstimates,
    standbyOf: StandbyOf = () => null,
    remote: RemoteSources = noRemote,
  ) {
    this.#store = store;
    this.#clock = clock;
    this.#standbyOf = standbyOf;
    this.#remote = remote;
    this.#estimates = estimates;
    this.#uses = new InstanceUses(clock);
    this.#index = this.#buildIndex();
  }

  /**
   * Reads the store; what was written there before the call is known after it. Concurrent callers share reads.
   * Throws `state_unavailable` and keeps the older knowledge when the database does not answer.
   */
  refresh(): Promise<void> {
    if (this.#queued !== null) return this.#queued;
    if (this.#running === null) return this.#begin();
    const afterRunning = () => {
      this.#queued = null;
      return this.#begin();
    };
    this.#queued = this.#running.then(afterRunning, afterRunning);
    return this.#queued;
  }

  /** Resolves at once if the store was ever read, else after the first read. */
  async known(): Promise<void> {
    if (!this.#wasRead) await this.refresh();
  }

  #begin(): Promise<void> {
    const run = this.#read().finally(() => {
      if (this.#running === run) this.#running = null;
    });
    this.#running = run;
    return run;
  }

  async #read(): Promise<void> {
    const read = this.#instances.beginRead();
    const began_ms = this.#clock.wallMs();
    // Once in a while everything, for rows that are gone without a trace, such as those of purged models.
    const isDue = began_ms - this.#wholeRead_ms >= limits.whole_read_ms;
    const changes = await this.#store.changes(isDue ? null : this.#mirror.mark);
    await this.#learnFacts(changes.models);
    this.#noteUses(changes);
    const isNews = this.#mirror.take(changes);
    this.#forgetFacts();
    if (changes.isWhole) this.#wholeRead_ms = began_ms;
    const isCorrected = this.#instances.finishRead(read, this.#mirror.snapshot.instances);
    this.#wasRead = true;
    if (isNews || isCorrected) {
      this.#index = this.#buildIndex();
      this.#changed();
    } else this.#notify();
  }

  /** Times of the database mean something against its own clock only; a use that was known says nothing new. */
  #noteUses({ instances, read_at }: ClusterChanges): void {
    const now_ms = this.#clock.wallMs();
    for (const row of instances) {
      const used = lastUse(row);
      const before = this.#mirror.instance(row.instance_id);
      if (before !== undefined && lastUse(before) === used) continue;
      const used_ms = now_ms - Math.max(0, read_at.getTime() - used);
      this.#storedUses.set(row.instance_id, used_ms);
      this.#uses.markUsed(row.instance_id, used_ms);
    }
  }

  #buildIndex(): ClusterIndex {
    const instances = this.instances;
    const usage = new Map(instances.map(({ instance_id }) => [instance_id, this.#uses.of(instance_id)]));
    const weights = new Map([...this.#facts].map(([digest, facts]) => [digest, facts.weights_bytes]));
    const minimums = new Map(
      this.snapshot.models
        .filter((m) => m.state === "active" && m.min_instances > 0)
        .map((m) => [m.model_id, m.min_instances]),
    );
    const facts = toClusterFacts(this.snapshot, instances, usage, this.#remote);
    return new ClusterIndex(facts, this.#estimates, weights, minimums, this.#standbyOf);
  }

  /** Reads the manifests of checkpoints that are new here. */
  async #learnFacts(models: readonly ModelRow[]): Promise<void> {
    for (const { model_id, checkpoint } of models) {
      if (this.#facts.has(checkpoint)) continue;
      const found = await this.#store.getModel(model_id);
      if (found === null) continue;
      const { digest, manifest } = found.checkpoint;
      this.#facts.set(digest, { model: manifest.model, weights_bytes: manifest.weights.bytes });
    }
  }

  /** Forgets the checkpoints that no model names any more. */
  #forgetFacts(): void {
    const named = new Set(this.snapshot.models.map((m) => m.checkpoint));
    for (const digest of this.#facts.keys()) if (!named.has(digest)) this.#facts.delete(digest);
  }

  #changed(): void {
    const isLive = (instance_id: InstanceId) => this.#instances.get(instance_id) !== undefined;
    this.#uses.keepOnly(isLive);
    for (const instance_id of this.#storedUses.keys())
      if (!isLive(instance_id)) this.#storedUses.delete(instance_id);
    this.#notify();
  }

  #notify(model_id?: ModelId): void {
    for (const listener of this.#listeners) listener(model_id);
  }

  /** The scheduler's view; it goes on following the fleet, so a decision must not wait in between. */
  view(): ClusterView {
    return this.#index;
  }

  get snapshot(): ClusterSnapshot {
    return this.#mirror.snapshot;
  }

  /** As of the last read; null when nobody ever had it. */
  /** All there were at the last read. */
  get leases(): readonly LeaseRow[] {
    return this.#mirror.leases;
  }

  lease(name: string): LeaseRow | null {
    return this.#mirror.lease(name);
  }

  /** Live instances: loading, running or being stopped. */
  get instances(): readonly InstanceRow[] {
    return [...this.#instances.rows.values()];
  }

  /** Live instances of one model. */
  instancesOf(model_id: ModelId): readonly InstanceRow[] {
    const rows = this.#index.instancesOf(model_id).map(({ view }) => this.instance(view.instance_id));
    return rows.filter((row) => row !== null);
  }

  instance(instance_id: InstanceId): InstanceRow | null {
    return this.#instances.get(instance_id) ?? null;
  }

  /** A deployed model in any state; null when there is none. */
  model(model_id: ModelId): FleetModel | null {
    const row = this.#mirror.model(model_id);
    const facts = row === undefined ? undefined : this.#facts.get(row.checkpoint);
    if (row === undefined || facts === undefined) return null;
    return { row, facts, adapters: this.adaptersOf(model_id) };
  }

  /** Adapters of a model, by their names. */
  adaptersOf(model_id: ModelId): readonly AdapterRow[] {
    return this.#mirror.adaptersOf(model_id);
  }

  activeModels(): readonly FleetModel[] {
    const models = this.snapshot.models
      .filter((m) => m.state === "active")
      .map((m) => this.model(m.model_id));
    return models.filter((m) => m !== null);
  }

  /** The model if it takes requests, else null. Reads the store only for names unknown here. */
  async findActiveModel(model_id: ModelId): Promise<FleetModel | null> {
    await this.known();
    let model = this.model(model_id);
    if (model?.row.state !== "active") {
      await this.refresh();
      model = this.model(model_id);
    }
    return model?.row.state === "active" ? model : null;
  }

  worker(worker_id: WorkerId): WorkerRow | null {
    return this.#mirror.worker(worker_id) ?? null;
  }

  placementsOf(worker_id: WorkerId): readonly PlacementRow[] {
    return this.#mirror.placementsOf(worker_id);
  }

  /** Where an instance is, in the very process it was started in; null when that process is not there any more. */
  addressOf({
    worker_id,
    incarnation,
  }: Pick<InstanceRow, "worker_id" | "incarnation">): WorkerAddress | null {
    const row = this.#mirror.worker(worker_id);
    return row?.incarnation === incarnation ? { worker_id, url: row.url, incarnation } : null;
  }

  /** Of whatever process the worker is now; null for one that is not connected. */
  addressOfWorker(worker_id: WorkerId): WorkerAddress | null {
    const row = this.#mirror.worker(worker_id);
    if (row === undefined || row.state === "gone") return null;
    return { worker_id, url: row.url, incarnation: row.incarnation };
  }

  /** null: the device is not reported any more. */
  deviceKind(at: DeviceAddress): DeviceKind | null {
    return this.#device(at)?.kind ?? null;
  }

  /** Whether engines on the device hold a repacked copy of the weights too. */
  repacks(at: DeviceAddress): boolean {
    return this.#device(at)?.repacks ?? false;
  }

  #device({ worker_id, device_id }: DeviceAddress): DeviceRow | undefined {
    return this.#mirror.device(worker_id, device_id);
  }

  /** Records a change of an instance that the store has accepted. */
  put(row: InstanceRow): void {
    this.#instances.put(row);
    if (isLiveState(row.state)) this.#index.put(row, this.#uses.of(row.instance_id));
    else {
      this.#index.remove(row.instance_id);
      this.#storedUses.delete(row.instance_id);
      this.#uses.forget(row.instance_id);
    }
    // What loads, serves or is about to leave is its own model's business; what has left makes room for others.
    if (row.state === "parked" || !isLiveState(row.state)) this.#notify();
    else this.#notify(row.model_id);
  }

  /** Notes when the load of an instance is expected to end, and to have its bytes from the disk or from elsewhere. */
  expectReady(...expected: Parameters<InstanceUses["expectReady"]>): void {
    this.#uses.expectReady(...expected);
  }

  /** Takes an instance into use, loading ones too. `onLost` is called if it ends before the release. */
  acquire(instance_id: InstanceId, onLost: () => void): InstanceUse {
    const use = this.#uses.acquire(instance_id, onLost, (isIdle) => {
      this.#index.refresh(instance_id);
      // A free slot is for its own model first; an idle instance may make room for others.
      this.#notify(this.instance(instance_id)?.model_id);
      if (isIdle) this.#notify();
    });
    this.#index.refresh(instance_id);
    return use;
  }

  inFlight(instance_id: InstanceId): number {
    return this.#uses.peek(instance_id).in_flight;
  }

  /** When the instance was used last as the store knows, by this fleet's clock; 0 if there was no use. */
  storedUseMs(instance_id: InstanceId): number {
    return this.#storedUses.get(instance_id) ?? 0;
  }

  /** Time of the last use known here; 0 if there was none. */
  lastUsedMs(instance_id: InstanceId): number {
    return this.#uses.peek(instance_id).last_used_ms;
  }

  /** Notes that somebody uses the instance now, for example another gateway as its worker reports. */
  markUsed(instance_id: InstanceId): void {
    if (this.#instances.get(instance_id) !== undefined)
      this.#uses.markUsed(instance_id, this.#clock.wallMs());
  }

  /** Told whenever anything changed that a decision could depend on; the model, where it concerns only one. */
  onChanged(listener: (model_id?: ModelId) => void): void {
    this.#listeners.push(listener);
  }
}

/** When an instance was used last, by the clock of the database. */
function lastUse({ last_used_at, ready_at, created_at }: InstanceRow): number {
  return (last_used_at ?? ready_at ?? created_at).getTime();
}
