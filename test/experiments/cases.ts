/**
 * The clusters of the experiments, and what of them is the paper's, what is usual for such hardware, and what is chosen.
 * OSDI '24 section 7: 4 servers with 4 A40, 512 GB memory, 2 TB of PCIe 4 NVMe, 10 Gbit/s; OPT-6.7B, 13B and 30B as 32,
 * 16 and 8 models; GSM8K; bursts with a coefficient of variation of 8; 300 s of patience.
 */
import type { ClairvoyantCluster } from "../../gateway/simulator/bound/clairvoyant.ts";
import {
  type SimulatedCluster,
  type SimulatedPolicy,
  type SimulatedQueue,
  simulatedCluster,
} from "../../schema/simulation.ts";

/** What is compared: a policy with the queue that it has. */
export interface Compared {
  readonly policy: SimulatedPolicy;
  readonly queue: SimulatedQueue;
}

/** All policies with our queue, and the paper's baselines, systems of others, as well with a plain one. */
export const compared: readonly Compared[] = [
  ...(
    ["startup-optimal", "locality", "preemptive", "random", "cache-on-disk", "download-first"] as const
  ).map((policy): Compared => ({ policy, queue: "gateway" })),
  ...(["random", "cache-on-disk", "download-first"] as const).map(
    (policy): Compared => ({ policy, queue: "plain" }),
  ),
];

export function nameOf({ policy, queue }: Compared): string {
  return queue === "plain" ? `${policy}, plain queue` : policy;
}
export const rates_per_s = [0.2, 0.5, 0.8, 1.1, 1.4] as const;
/** Of the larger models. */
export const fewRates_per_s = [0.2, 0.8, 1.4] as const;
export const seeds = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] as const;
export const zipf = 0.9;
export const cv = 8;
export const duration_ms = 10 * 60_000;

const GB = 1e9;

interface ModelSize {
  readonly name: string;
  readonly copies: number;
  readonly weights_bytes: number;
  readonly kv_bytes_per_token: number;
  readonly embedding: number;
  readonly token_ms: number;
  /** Devices of a host as models see them: OPT-30B needs two A40. */
  readonly devices: number;
  readonly device_memory_bytes: number;
  readonly bus_bytes_per_s: number;
}

/**
 * Weights in 16 bits. A token reads all weights once at about 60 % of an A40's 696 GB/s, two devices one after the other;
 * a thousand tokens of prompt take as long as a hundred of output (paper, section 5). Memory: one model a device.
 */
export const sizes = {
  "opt-6.7b": {
    ...{
      name: "opt-6.7b",
      copies: 32,
      weights_bytes: 13.3 * GB,
      kv_bytes_per_token: 524_288,
      embedding: 4_096,
    },
    ...{ token_ms: 30, devices: 4, device_memory_bytes: 24 * GB, bus_bytes_per_s: 25 * GB },
  },
  "opt-13b": {
    ...{
      name: "opt-13b",
      copies: 16,
      weights_bytes: 25.7 * GB,
      kv_bytes_per_token: 819_200,
      embedding: 5_120,
    },
    ...{ token_ms: 60, devices: 4, device_memory_bytes: 48 * GB, bus_bytes_per_s: 25 * GB },
  },
  "opt-30b": {
    ...{
      name: "opt-30b",
      copies: 8,
      weights_bytes: 60 * GB,
      kv_bytes_per_token: 1_376_256,
      embedding: 7_168,
    },
    ...{ token_ms: 140, devices: 2, device_memory_bytes: 96 * GB, bus_bytes_per_s: 50 * GB },
  },
} as const satisfies Record<string, ModelSize>;
export type SizeName = keyof typeof sizes;

export interface Shelves {
  /** Hosts whose disks hold a model; null: all four. */
  readonly disk_copies: number | null;
  readonly host_memory_bytes: number;
}

/** As the paper's hardware allows: every model on every disk, and four fifths of the memory for weights. */
export const plenty: Shelves = { disk_copies: null, host_memory_bytes: 400 * GB };
/** As fleets with more models than disk have it: each model on one disk, room for a third of them in a host's memory. */
export const scarce: Shelves = { disk_copies: 1, host_memory_bytes: 160 * GB };

export function paperCluster(size: SizeName, shelves: Shelves, slots = 1): SimulatedCluster {
  const { token_ms, devices, device_memory_bytes, bus_bytes_per_s, ...model } = sizes[size];
  return simulatedCluster.parse({
    hosts: [
      {
        ...{ name: "a40", count: 4, devices, device_memory_bytes, bus_bytes_per_s },
        ...{ host_memory_bytes: shelves.host_memory_bytes, disk_bytes: 2_000 * GB, disk_bytes_per_s: 5 * GB },
        network_bytes_per_s: 1.25 * GB,
      },
    ],
    models: [
      {
        ...{ ...model, token_ms, slots, prefill_base_ms: token_ms, prefill_ms_per_token: token_ms / 10 },
        ...{
          build_ms: 250,
          init_ms: 150,
          stop_ms: 50,
          keep_alive_ms: 30_000,
          disk_copies: shelves.disk_copies,
        },
      },
    ],
    system: { turn_ms: 1_000 },
  });
}

/** Least time of a start on it: from host memory. */
export function leastLoadMs(size: SizeName): number {
  const { weights_bytes, bus_bytes_per_s } = sizes[size];
  return Math.max(250, (weights_bytes / bus_bytes_per_s) * 1_000) + 150;
}

/** The cluster as a schedule that knows all sees it; each host has its own models on disk, as the simulator fills them. */
export function clairvoyantCluster(size: SizeName, shelves: Shelves): ClairvoyantCluster {
  const [host] = paperCluster(size, shelves).hosts;
  if (host === undefined) throw new Error("the cluster has hosts");
  const { weights_bytes } = sizes[size];
  const loadMs = (bytes_per_s: number) => (weights_bytes / bytes_per_s) * 1_000 + 150;
  return {
    ...{ hosts: host.count, devices: host.devices },
    hostOf: (model) => (shelves.disk_copies === null ? null : model % host.count),
    copies: Math.floor(shelves.host_memory_bytes / weights_bytes),
    network_load_ms: loadMs(host.network_bytes_per_s),
    disk_load_ms: loadMs(host.disk_bytes_per_s),
    load_ms: leastLoadMs(size),
  };
}
