/**
 * One simulated host: copies in memory and on disk, links that carry one load after the other, engines that take their
 * time. Answers how long a load takes; whoever asks waits that long.
 */
import type { LoadTimings } from "../../schema/cluster/instances.ts";
import type { LinkReport } from "../../schema/cluster/membership.ts";
import type { PlacementRow } from "../../schema/db/tables.ts";
import type { CheckpointDigest, InstanceId, WorkerId } from "../../schema/ids.ts";
import type { SimulatedHosts } from "../../schema/simulation.ts";
import type { Tier } from "../../schema/vocab.ts";
import type { ModelSpec } from "./cluster-spec.ts";
import { type Copy, Shelf } from "./shelf.ts";

/** What a host keeps, and whether the parts of a load overlap. */
export interface Storage {
  readonly host_tier: boolean;
  /** `kept`: filled from the start, downloads stay too. `cache`: downloads alone. */
  readonly disk_tier: "kept" | "cache" | "none";
  readonly is_pipelined: boolean;
}

export interface HostLoad {
  readonly ready_at_ms: number;
  readonly timings: LoadTimings;
  /** Where the bytes came from. */
  readonly tier: Tier;
}

export class SimulatedHost {
  readonly worker_id: WorkerId;
  readonly spec: SimulatedHosts;
  readonly memory: Shelf;
  readonly disk: Shelf;
  readonly #storage: Storage;
  #disk_free_at_ms = 0;
  #network_free_at_ms = 0;
  readonly #bus_free_at_ms = new Map<string, number>();
  /** Host copies that instances compute on, and the memory that these have booked. */
  readonly #held = new Map<InstanceId, { readonly copy: Copy; readonly booked_bytes: number }>();

  constructor(worker_id: WorkerId, spec: SimulatedHosts, storage: Storage) {
    this.worker_id = worker_id;
    this.spec = spec;
    this.#storage = storage;
    this.memory = new Shelf(storage.host_tier ? spec.host_memory_bytes : 0);
    this.disk = new Shelf(storage.disk_tier === "none" ? 0 : spec.disk_bytes);
  }

  /** Puts a checkpoint on the disk before anything happens; false when there is no room. */
  store({ checkpoint, weights_bytes }: ModelSpec): boolean {
    if (this.#storage.disk_tier !== "kept" || this.disk.used_bytes + weights_bytes > this.spec.disk_bytes)
      return false;
    return this.disk.put(checkpoint, weights_bytes, 0) !== null;
  }

  /** A start, or the return of a parked instance. Links and copies are booked from now on. */
  load(
    instance_id: InstanceId,
    device_id: string,
    model: ModelSpec,
    now_ms: number,
    isParked: boolean,
  ): HostLoad {
    const { checkpoint, weights_bytes } = model;
    const travel = this.#travel(checkpoint, weights_bytes, now_ms);
    const upload = this.#upload(device_id, weights_bytes, travel, now_ms);
    const build_ms = isParked ? 0 : model.build_ms;
    const begun_ms = travel.tier === "host" ? now_ms : travel.begin_ms;
    const init_ms = isParked ? Math.min(model.init_ms, resume_ms) : model.init_ms;
    const ready_at_ms = Math.max(upload.end_ms, begun_ms + build_ms) + init_ms;
    if (this.spec.device_kind === "cpu" && travel.copy !== null) {
      travel.copy.users += 1;
      this.#held.set(instance_id, { copy: travel.copy, booked_bytes: model.memory_bytes });
      this.#trim();
    }
    const isRead = travel.tier === "disk";
    const total_ms = ready_at_ms - now_ms;
    const timings = {
      process_start_ms: 0,
      disk_read_ms: isRead ? travel.end_ms - travel.begin_ms : 0,
      disk_read_bytes: isRead ? weights_bytes : 0,
      model_build_ms: isParked ? 0 : Math.max(build_ms, leastBuild_ms),
      ...(upload.bytes > 0 ? { upload_ms: upload.end_ms - upload.begin_ms, upload_bytes: upload.bytes } : {}),
      resume_ms: isParked ? total_ms : 0,
      total_ms,
    };
    return { ready_at_ms, timings, tier: travel.tier };
  }

  /** An instance computes on its host copy no more. */
  release(instance_id: InstanceId): void {
    const held = this.#held.get(instance_id);
    if (held === undefined) return;
    this.#held.delete(instance_id);
    held.copy.users -= 1;
    this.#trim();
  }

  /** Where processors compute, copies of stopped models lie in the very memory that instances book. */
  #trim(): void {
    const { devices, device_memory_bytes, host_memory_bytes } = this.spec;
    let free_bytes = devices * device_memory_bytes;
    for (const { booked_bytes } of this.#held.values()) free_bytes -= booked_bytes;
    this.memory.trim(Math.min(host_memory_bytes, free_bytes));
  }

  #travel(checkpoint: CheckpointDigest, bytes: number, now_ms: number) {
    const present = this.memory.use(checkpoint);
    if (present !== null) {
      const end_ms = Math.max(now_ms, present.complete_at_ms);
      return { tier: "host" as Tier, begin_ms: now_ms, end_ms, copy: present };
    }
    const onDisk = this.disk.use(checkpoint);
    if (onDisk !== null) {
      const begin_ms = Math.max(now_ms, this.#disk_free_at_ms, onDisk.complete_at_ms);
      const end_ms = begin_ms + (bytes / this.spec.disk_bytes_per_s) * 1_000;
      this.#disk_free_at_ms = end_ms;
      return { tier: "disk" as Tier, begin_ms, end_ms, copy: this.memory.put(checkpoint, bytes, end_ms) };
    }
    const begin_ms = Math.max(now_ms, this.#network_free_at_ms);
    let end_ms = begin_ms + (bytes / this.spec.network_bytes_per_s) * 1_000;
    this.#network_free_at_ms = end_ms;
    if (this.#storage.disk_tier !== "none") this.disk.put(checkpoint, bytes, end_ms);
    if (!this.#storage.is_pipelined && this.#storage.disk_tier !== "none") {
      end_ms = Math.max(end_ms, this.#disk_free_at_ms) + (bytes / this.spec.disk_bytes_per_s) * 1_000;
      this.#disk_free_at_ms = end_ms;
    }
    return { tier: "origin" as Tier, begin_ms, end_ms, copy: this.memory.put(checkpoint, bytes, end_ms) };
  }

  /** To the device: beside the bytes' arrival where parts overlap, else after it. */
  #upload(
    device_id: string,
    bytes: number,
    travel: { readonly tier: Tier; readonly begin_ms: number; readonly end_ms: number },
    now_ms: number,
  ) {
    if (this.spec.device_kind === "cpu") return { begin_ms: now_ms, end_ms: travel.end_ms, bytes: 0 };
    const from_ms = this.#storage.is_pipelined ? travel.begin_ms : travel.end_ms;
    const begin_ms = Math.max(from_ms, this.#bus_free_at_ms.get(device_id) ?? 0);
    const end_ms = Math.max(travel.end_ms, begin_ms + (bytes / this.spec.bus_bytes_per_s) * 1_000);
    this.#bus_free_at_ms.set(device_id, end_ms);
    // What waits for the disk says nothing about the bus.
    return { begin_ms, end_ms, bytes: travel.tier === "host" ? bytes : 0 };
  }

  /** As a worker reports them. */
  links(now_ms: number): LinkReport[] {
    const { disk_bytes_per_s, network_bytes_per_s, bus_bytes_per_s, devices, device_kind } = this.spec;
    const report = (link: string, free_at_ms: number, bandwidth_bytes_per_s: number) => {
      const queued_ms = Math.max(0, Math.round(free_at_ms - now_ms));
      return {
        link,
        queued_bytes: (queued_ms * bandwidth_bytes_per_s) / 1_000,
        queued_ms,
        bandwidth_bytes_per_s,
      };
    };
    const buses = Array.from({ length: device_kind === "cpu" ? 0 : devices }, (_, i) => {
      const device_id = deviceName(this.spec, i);
      return report(`device:${device_id}`, this.#bus_free_at_ms.get(device_id) ?? 0, bus_bytes_per_s);
    });
    return [
      report("disk", this.#disk_free_at_ms, disk_bytes_per_s),
      report("network", this.#network_free_at_ms, network_bytes_per_s),
      ...buses,
    ];
  }

  /** When its links are idle again. */
  get busy_until_ms(): number {
    return Math.max(this.#disk_free_at_ms, this.#network_free_at_ms, ...this.#bus_free_at_ms.values());
  }

  placements(now_ms: number, updated_at: Date): PlacementRow[] {
    const { worker_id } = this;
    const rows: PlacementRow[] = [];
    const add = (tier: Tier, shelf: Shelf) => {
      for (const [checkpoint, { bytes, complete_at_ms }] of shelf.copies) {
        const bytes_present = complete_at_ms <= now_ms ? bytes : 0;
        rows.push({ worker_id, checkpoint, tier, state: "present", bytes_present, updated_at });
      }
    };
    add("disk", this.disk);
    add("host", this.memory);
    return rows;
  }
}

/** A parked instance has its model and process; what is left is mapping its pages. */
const resume_ms = 5;
/** The gateway tells engines that had their model by a build of no time. */
const leastBuild_ms = 1;

export function deviceName({ device_kind }: Pick<SimulatedHosts, "device_kind">, index: number): string {
  return device_kind === "cpu" && index === 0 ? "cpu" : `${device_kind}${index}`;
}
