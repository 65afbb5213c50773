/**
 * The durable state of a simulated cluster, in memory: what the fleet, starts, loads and stops ask of a store, with the
 * same guards as the database. One reader, so what changed is simply what changed since the last read.
 */
import type { DeviceRow, InstanceRow, ModelRow, WorkerRow } from "../../schema/db/tables.ts";
import type { CheckpointDigest, InstanceId, ModelId, WorkerId } from "../../schema/ids.ts";
import { instanceMoves } from "../../schema/vocab.ts";
import type {
  Clock,
  ClusterChanges,
  CreateInstanceResult,
  InstanceMove,
  NewInstance,
  ReadMark,
  StateStore,
} from "../ports.ts";
import type { ModelSpec } from "./cluster-spec.ts";
import { deviceName, type SimulatedHost } from "./host.ts";
import { checkpointRow, modelRow, newInstanceRow, workerRow } from "./rows.ts";

type Used = "changes" | "getModel" | "createInstance" | "moveInstance";

interface Book {
  readonly row: DeviceRow;
  reserved_bytes: number;
}

export class ClusterStore implements Pick<StateStore, Used> {
  readonly #clock: Pick<Clock, "wallMs">;
  readonly #hosts = new Map<WorkerId, SimulatedHost>();
  readonly #workers = new Map<WorkerId, WorkerRow>();
  readonly #books = new Map<string, Book>();
  readonly #models = new Map<ModelId, { readonly row: ModelRow; readonly spec: ModelSpec }>();
  readonly #live = new Map<InstanceId, InstanceRow>();
  readonly #liveOf = new Map<ModelId, number>();
  readonly #changed = new Map<InstanceId, InstanceRow>();
  readonly #changedHosts = new Set<WorkerId>();
  #mark = 0;
  /** Told of every instance that came or changed. */
  onInstance: (row: InstanceRow) => void = () => {};

  constructor(clock: Pick<Clock, "wallMs">, hosts: readonly SimulatedHost[], models: readonly ModelSpec[]) {
    this.#clock = clock;
    for (const host of hosts) {
      this.#hosts.set(host.worker_id, host);
      for (let i = 0; i < host.spec.devices; i++) {
        const { worker_id, spec } = host;
        const device_id = deviceName(spec, i);
        const kind = spec.device_kind;
        const row = { worker_id, device_id, kind, memory_bytes: spec.device_memory_bytes, repacks: false };
        this.#books.set(bookName(row), { row: { ...row, reserved_bytes: 0 }, reserved_bytes: 0 });
      }
    }
    for (const spec of models) this.#models.set(spec.model_id, { row: modelRow(spec), spec });
  }

  /** What a host holds, or has before it, is not as it was. */
  hostChanged(worker_id: WorkerId): void {
    this.#changedHosts.add(worker_id);
  }

  /** Nothing is new since the last read. */
  get isRead(): boolean {
    return this.#mark > 0 && this.#changed.size === 0 && this.#changedHosts.size === 0;
  }

  get live(): ReadonlyMap<InstanceId, InstanceRow> {
    return this.#live;
  }

  async changes(since: ReadMark | null): Promise<ClusterChanges> {
    const isWhole = since === null;
    const now_ms = this.#clock.wallMs();
    const read_at = new Date(now_ms);
    const holders = isWhole ? [...this.#hosts.keys()] : [...this.#changedHosts];
    const hosts = holders.map((worker_id) => this.#hosts.get(worker_id)).filter((host) => host !== undefined);
    const workers = hosts.map((host) => this.#worker(host, now_ms));
    const instances = [...(isWhole ? this.#live : this.#changed).values()];
    this.#changed.clear();
    this.#changedHosts.clear();
    // A host whose links are at work has something else to report the next time.
    for (const host of hosts) if (host.busy_until_ms > now_ms) this.#changedHosts.add(host.worker_id);
    this.#mark += 1;
    return {
      ...{ mark: this.#mark, isWhole, read_at, workers, holders, instances },
      devices: hosts.flatMap(({ worker_id, spec }) =>
        Array.from({ length: spec.devices }, (_, i) => this.#device(worker_id, deviceName(spec, i))),
      ),
      placements: hosts.flatMap((host) => host.placements(now_ms, read_at)),
      models: isWhole ? [...this.#models.values()].map(({ row }) => row) : [],
      ...{ adapters: [], leases: [] },
    };
  }

  #worker(host: SimulatedHost, now_ms: number): WorkerRow {
    const links = host.links(now_ms);
    const row = this.#workers.get(host.worker_id);
    const next = row === undefined ? workerRow(host.worker_id, links) : { ...row, links };
    this.#workers.set(host.worker_id, next);
    return next;
  }

  #device(worker_id: WorkerId, device_id: string): DeviceRow {
    const { row, reserved_bytes } = this.#book({ worker_id, device_id });
    return { ...row, reserved_bytes };
  }

  async getModel(model_id: ModelId) {
    const known = this.#models.get(model_id);
    return known === undefined ? null : { model: known.row, checkpoint: checkpointRow(known.spec) };
  }

  async createInstance(wanted: NewInstance): Promise<CreateInstanceResult> {
    const { model_id, memory_bytes, expected_live } = wanted;
    if (!this.#models.has(model_id)) return { ok: false, reason: "model_not_active" };
    if ((this.#liveOf.get(model_id) ?? 0) > expected_live) return { ok: false, reason: "conflict" };
    if (!this.#reserve(wanted, memory_bytes)) return { ok: false, reason: "no_memory" };
    const instance = newInstanceRow(wanted, new Date(this.#clock.wallMs()));
    this.#liveOf.set(model_id, (this.#liveOf.get(model_id) ?? 0) + 1);
    this.#put(instance);
    return { ok: true, instance };
  }

  async moveInstance({ instance_id, from, to, memory_bytes }: InstanceMove): Promise<boolean> {
    const row = this.#live.get(instance_id);
    if (row === undefined || !from.includes(row.state)) return false;
    const legal: readonly string[] = instanceMoves[row.state];
    if (!legal.includes(to)) throw new Error(`an instance does not go from ${row.state} to ${to}`);
    const ends = to === "gone" || to === "failed";
    const books = ends ? 0 : (memory_bytes ?? row.memory_bytes);
    if (!this.#reserve(row, books - row.memory_bytes)) return false;
    const now = new Date(this.#clock.wallMs());
    const ready_at = to === "ready" && row.state === "loading" ? now : row.ready_at;
    const next = {
      ...row,
      state: to,
      ready_at,
      memory_bytes: ends ? row.memory_bytes : books,
      ended_at: ends ? now : null,
    };
    if (ends) this.#liveOf.set(row.model_id, (this.#liveOf.get(row.model_id) ?? 1) - 1);
    this.#put(next);
    return true;
  }

  #put(row: InstanceRow): void {
    if (row.ended_at === null) this.#live.set(row.instance_id, row);
    else this.#live.delete(row.instance_id);
    this.#changed.set(row.instance_id, row);
    this.onInstance(row);
  }

  /** False, and nothing booked, where the device's free bytes do not suffice. */
  #reserve(at: { readonly worker_id: WorkerId; readonly device_id: string }, bytes: number): boolean {
    const book = this.#book(at);
    if (bytes > 0 && book.reserved_bytes + bytes > book.row.memory_bytes) return false;
    book.reserved_bytes += bytes;
    return true;
  }

  #book(at: { readonly worker_id: WorkerId; readonly device_id: string }): Book {
    const book = this.#books.get(bookName(at));
    if (book === undefined) throw new Error(`there is no device ${bookName(at)}`);
    return book;
  }

  /** Of a live instance's checkpoint. */
  specOf(model_id: ModelId): ModelSpec {
    const known = this.#models.get(model_id);
    if (known === undefined) throw new Error(`there is no model ${model_id}`);
    return known.spec;
  }

  checkpointsOnHosts(): ReadonlySet<CheckpointDigest> {
    return new Set([...this.#hosts.values()].flatMap((host) => [...host.disk.copies.keys()]));
  }
}

function bookName({
  worker_id,
  device_id,
}: {
  readonly worker_id: WorkerId;
  readonly device_id: string;
}): string {
  return `${worker_id}/${device_id}`;
}
