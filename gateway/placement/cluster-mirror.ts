/** The cluster's tables as this gateway last read them, kept up by what changed since. Holds no clock and does no I/O. */
import type {
  AdapterRow,
  DeviceRow,
  InstanceRow,
  LeaseRow,
  ModelRow,
  PlacementRow,
  WorkerRow,
} from "../../schema/db/tables.ts";
import type { InstanceId, ModelId, WorkerId } from "../../schema/ids.ts";
import type { ClusterChanges, ClusterSnapshot, ReadMark } from "../ports.ts";
import { isLiveState } from "./instance-table.ts";

interface Holdings {
  readonly devices: readonly DeviceRow[];
  readonly placements: readonly PlacementRow[];
}

export class ClusterMirror {
  readonly #workers = new Map<WorkerId, WorkerRow>();
  readonly #holdings = new Map<WorkerId, Holdings>();
  readonly #instances = new Map<InstanceId, InstanceRow>();
  readonly #models = new Map<ModelId, ModelRow>();
  readonly #adapters = new Map<ModelId, readonly AdapterRow[]>();
  #leases: readonly LeaseRow[] = [];
  #mark: ReadMark | null = null;
  #snapshot: ClusterSnapshot = {
    ...{ workers: [], devices: [], placements: [] },
    ...{ instances: [], models: [], adapters: [] },
  };

  /** Where the next read should begin; null before the first. */
  get mark(): ReadMark | null {
    return this.#mark;
  }

  /** All that is known, in the orders of `StateStore.snapshot`. Never changed, only replaced. */
  get snapshot(): ClusterSnapshot {
    return this.#snapshot;
  }

  get leases(): readonly LeaseRow[] {
    return this.#leases;
  }

  lease(name: string): LeaseRow | null {
    return this.#leases.find((lease) => lease.name === name) ?? null;
  }

  worker(worker_id: WorkerId): WorkerRow | undefined {
    return this.#workers.get(worker_id);
  }

  placementsOf(worker_id: WorkerId): readonly PlacementRow[] {
    return this.#holdings.get(worker_id)?.placements ?? [];
  }

  device(worker_id: WorkerId, device_id: string): DeviceRow | undefined {
    return this.#holdings.get(worker_id)?.devices.find((row) => row.device_id === device_id);
  }

  model(model_id: ModelId): ModelRow | undefined {
    return this.#models.get(model_id);
  }

  /** Adapters of a model, by their names. */
  adaptersOf(model_id: ModelId): readonly AdapterRow[] {
    return this.#adapters.get(model_id) ?? [];
  }

  /** A live instance; the same object until a read brings another. */
  instance(instance_id: InstanceId): InstanceRow | undefined {
    return this.#instances.get(instance_id);
  }

  /** Takes a read in. False when it brought nothing but signs of life: what could be decided before still holds. */
  take(changes: ClusterChanges): boolean {
    if (changes.isWhole) this.#forgetAll();
    let isNews = changes.isWhole;
    for (const row of changes.workers) {
      isNews ||= !saysTheSame(this.#workers.get(row.worker_id), row);
      this.#workers.set(row.worker_id, row);
    }
    this.#takeHoldings(changes);
    for (const row of changes.instances) {
      if (isLiveState(row.state)) this.#instances.set(row.instance_id, row);
      else this.#instances.delete(row.instance_id);
    }
    for (const row of changes.models) this.#models.set(row.model_id, row);
    this.#takeAdapters(changes);
    const { holders, instances, models } = changes;
    isNews ||= holders.length > 0 || instances.length > 0 || models.length > 0;
    this.#leases = changes.leases;
    this.#mark = changes.mark;
    this.#snapshot = isNews ? this.#build() : { ...this.#snapshot, workers: byId(this.#workers) };
    return isNews;
  }

  #forgetAll(): void {
    for (const table of [this.#workers, this.#holdings, this.#instances, this.#models, this.#adapters])
      table.clear();
  }

  #takeHoldings({ holders, devices, placements }: ClusterChanges): void {
    const held = new Map(holders.map((worker_id) => [worker_id, newHoldings()]));
    for (const row of devices) held.get(row.worker_id)?.devices.push(row);
    for (const row of placements) held.get(row.worker_id)?.placements.push(row);
    for (const [worker_id, holdings] of held) this.#holdings.set(worker_id, holdings);
  }

  #takeAdapters({ models, adapters }: ClusterChanges): void {
    const named = new Map(models.map(({ model_id }): [ModelId, AdapterRow[]] => [model_id, []]));
    for (const row of adapters) named.get(row.model_id)?.push(row);
    for (const [model_id, rows] of named) this.#adapters.set(model_id, rows);
  }

  #build(): ClusterSnapshot {
    const instances = [...this.#instances.values()].sort(byCreation);
    const reserved = reservedBytes(instances);
    const holdings = byId(this.#holdings);
    return {
      workers: byId(this.#workers),
      devices: holdings.flatMap((held) => held.devices.map((row) => withReserved(row, reserved))),
      placements: holdings.flatMap((held) => held.placements),
      instances,
      models: byId(this.#models),
      adapters: byId(this.#adapters).flat(),
    };
  }
}

function newHoldings(): { devices: DeviceRow[]; placements: PlacementRow[] } {
  return { devices: [], placements: [] };
}

/** Whether a worker reported nothing that a decision depends on; that it reported at all is no such thing. */
function saysTheSame(before: WorkerRow | undefined, now: WorkerRow): boolean {
  if (before === undefined) return false;
  if (before.state !== now.state || before.incarnation !== now.incarnation || before.url !== now.url)
    return false;
  return same(before.links, now.links) && same(before.problems, now.problems);
}

function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

/** What a device has booked is the sum over its live instances; bookings alone do not bring its row along. */
function reservedBytes(instances: readonly InstanceRow[]): ReadonlyMap<string, number> {
  const reserved = new Map<string, number>();
  for (const { worker_id, device_id, memory_bytes } of instances) {
    const key = `${worker_id}/${device_id}`;
    reserved.set(key, (reserved.get(key) ?? 0) + memory_bytes);
  }
  return reserved;
}

function withReserved(row: DeviceRow, reserved: ReadonlyMap<string, number>): DeviceRow {
  return { ...row, reserved_bytes: reserved.get(`${row.worker_id}/${row.device_id}`) ?? 0 };
}

function byId<T>(table: ReadonlyMap<string, T>): T[] {
  return [...table].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, row]) => row);
}

function byCreation(a: InstanceRow, b: InstanceRow): number {
  return a.created_at.getTime() - b.created_at.getTime() || (a.instance_id < b.instance_id ? -1 : 1);
}
