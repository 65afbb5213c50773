/** What a simulated cluster is made of: hosts, models, and the system that runs them. One YAML file holds all of it. */
import { z } from "zod";
import { modelId } from "./ids.ts";
import { limits } from "./limits.ts";
import { deviceKinds, schedulingPolicies } from "./vocab.ts";

const bytes = z.number().min(0).max(limits.simulated_bytes);
const bytesPerS = z.number().positive().max(limits.simulated_bytes);
const ms = z.number().min(0).max(limits.simulated_ms);

/**
 * Policies of the scheduler, and two systems without its tiers: one that downloads for every start, and one that keeps
 * what it downloaded on its disks.
 */
export const simulatedPolicies = [...schedulingPolicies, "download-first", "cache-on-disk"] as const;
export type SimulatedPolicy = (typeof simulatedPolicies)[number];

/** The gateway's queue, or one in which each request, first come first served, looks for an instance of its own. */
export const simulatedQueues = ["gateway", "plain"] as const;
export type SimulatedQueue = (typeof simulatedQueues)[number];

export const simulatedHosts = z.strictObject({
  name: z.string().min(1).max(64),
  count: z.number().int().min(1).max(limits.simulated_hosts),
  /** Devices of each; several that are joined for one model count as one. */
  devices: z.number().int().min(1).max(64),
  device_kind: z.enum(deviceKinds).default("cuda"),
  /** What a device gives models. */
  device_memory_bytes: bytes,
  /** Host memory that keeps weights for the next start. */
  host_memory_bytes: bytes,
  disk_bytes: bytes,
  disk_bytes_per_s: bytesPerS,
  /** From host memory to one device; devices that compute in host memory have no such link. */
  bus_bytes_per_s: bytesPerS.default(25e9),
  network_bytes_per_s: bytesPerS.default(1.25e9),
  /** Of one host, in any currency. */
  price_per_hour: z.number().min(0).default(0),
});
export type SimulatedHosts = z.infer<typeof simulatedHosts>;

export const simulatedModels = z.strictObject({
  name: modelId,
  /** As many models of these numbers, `<name>-0` and so on; one of them is called as it is. */
  copies: z.number().int().min(1).max(limits.simulated_models).default(1),
  weights_bytes: bytes,
  kv_bytes_per_token: bytes,
  embedding: z.number().int().min(1).default(4_096),
  vocabulary_tokens: z.number().int().min(1).default(50_272),
  context_tokens: z.number().int().min(16).max(limits.context_tokens).default(2_048),
  slots: z.number().int().min(1).max(limits.slots).default(1),
  prefill_ms_per_token: ms,
  prefill_base_ms: ms.default(0),
  token_ms: ms.positive(),
  /** Until an engine has its model; the weights travel meanwhile. */
  build_ms: ms.default(0),
  /** What a start takes when weights and model are there. */
  init_ms: ms.default(0),
  stop_ms: ms.default(50),
  keep_alive_ms: ms.default(limits.keep_alive_ms),
  min_instances: z.number().int().min(0).max(limits.model_instances).default(0),
  max_instances: z.number().int().min(1).max(limits.model_instances).nullable().default(null),
  /** Hosts whose disks hold it from the start, in turn; null: all. */
  disk_copies: z.number().int().min(0).max(limits.simulated_hosts).nullable().default(null),
});
export type SimulatedModels = z.infer<typeof simulatedModels>;

export const simulatedSystem = z.strictObject({
  policy: z.enum(simulatedPolicies).default("startup-optimal"),
  queue: z.enum(simulatedQueues).default("gateway"),
  /** Running generations are moved away where the policy wants it. */
  migrate: z.boolean().default(true),
  /** Weights that a host does not hold come over its network link; without it such a host cannot run the model. */
  fetch: z.boolean().default(true),
  /** How long a request waits for an instance. */
  hold_ms: ms.default(limits.hold_ms),
  /** How long an idle instance on processors stays parked before it is stopped; 0 parks none. */
  park_ms: ms.default(limits.park_ms),
  starvation_ms: ms.default(limits.starvation_ms),
  queue_delay_ms: ms.default(limits.queue_delay_ms),
  /** Between two looks of the reconcile loop. */
  turn_ms: ms.min(1).default(limits.reconcile_ms),
  /** A move ends with tokens not yet at the destination, at most so many, or after so many rounds. */
  migration_gap_tokens: z.number().int().min(1).default(8),
  migration_rounds: z.number().int().min(1).max(64).default(8),
});
export type SimulatedSystem = z.infer<typeof simulatedSystem>;

export const simulatedCluster = z.strictObject({
  hosts: z.array(simulatedHosts).min(1).max(64),
  models: z.array(simulatedModels).min(1).max(limits.simulated_models),
  system: simulatedSystem.prefault({}),
});
export type SimulatedCluster = z.infer<typeof simulatedCluster>;
