/** The admin API under /admin/v1: deploy, list and delete models; see workers, instances and generations. */
import { z } from "zod";
import { manifest } from "../checkpoint/manifest.ts";
import { engineActivity } from "../cluster/activity.ts";
import { kvSettings } from "../cluster/instances.ts";
import { loadTrace } from "../cluster/loads.ts";
import { linkReport, storeProblem } from "../cluster/membership.ts";
import { wireError } from "../error.ts";
import { checkpointDigest, gatewayId, generationId, instanceId, modelId, workerId } from "../ids.ts";
import { limits } from "../limits.ts";
import {
  deviceKinds,
  estimateQuantities,
  finishReasons,
  generationStates,
  instanceStates,
  modelStates,
  placementStates,
  priorities,
  tiers,
  workerStates,
} from "../vocab.ts";

/** How many instances a model has. */
const scalingSettings = {
  /** Kept running whether anybody asks or not, and never stopped for other models; they start with the deployment. */
  min_instances: z.number().int().min(0).max(limits.model_instances).optional(),
  /** At most; as many as devices can run it if left out. */
  max_instances: z.number().int().min(1).max(limits.model_instances).optional(),
  /** Requests per instance above which more are started, on average over some seconds; by queue delay alone if left out. */
  target_concurrency: z.number().int().min(1).max(limits.model_concurrency).optional(),
  /** Expected wait for a slot above which more instances are started, where that is sooner. */
  queue_delay_ms: z.number().int().min(0).max(3_600_000).optional(),
  /** The weights are put into host memory before the first request, where memory is free. */
  preload: z.boolean().optional(),
};

/** How a model is run. What is left out follows the model and the gateway's settings. */
export const modelSettings = z.strictObject({
  /** Context of one sequence; the model's own, at most 4096, if left out. */
  context_tokens: z.number().int().min(16).max(limits.context_tokens).optional(),
  /** Parallel sequences of an instance. */
  slots: z.number().int().min(1).max(limits.slots).default(4),
  /**
   * Tokens that the KV cache of an instance holds for all slots together, at least one context; a context for each slot
   * if left out. When it runs short the youngest request waits and is computed again.
   */
  kv_tokens: kvSettings.kv_tokens,
  /** Answers depend on their request alone, to the last bit, and can be continued elsewhere; slower. */
  deterministic: z.boolean().optional(),
  /** Idle time before the instance is stopped; the gateway's setting if left out. */
  keep_alive_ms: z.number().int().min(0).max(86_400_000).optional(),
  ...scalingSettings,
});
export type ModelSettings = z.output<typeof modelSettings>;

/** POST /admin/v1/models. The manifest travels whole, so the gateway needs no file system. */
export const deployRequest = z.strictObject({
  id: modelId,
  manifest,
  settings: modelSettings.prefault({}),
  /** Take over an existing model of this name instead of refusing. */
  replace: z.boolean().default(false),
});
export type DeployRequest = z.output<typeof deployRequest>;

export const deployedModel = z.object({
  id: modelId,
  state: z.enum(modelStates),
  checkpoint: checkpointDigest,
  architecture: z.string(),
  parameters: z.number(),
  weights_bytes: z.number(),
  /** What besides decides an instance's memory; left out by gateways that do not tell it. */
  kv_bytes_per_token: z.number().optional(),
  embedding: z.number().int().optional(),
  vocabulary_tokens: z.number().int().optional(),
  context_tokens: z.number().int(),
  slots: z.number().int(),
  kv_tokens: z.number().int().nullable(),
  deterministic: z.boolean(),
  keep_alive_ms: z.number().int(),
  min_instances: z.number().int(),
  /** null: as many as devices can run it. */
  max_instances: z.number().int().nullable(),
  target_concurrency: z.number().int().nullable(),
  queue_delay_ms: z.number().int(),
  preload: z.boolean(),
  created_at: z.string(),
  instances: z.array(
    z.object({ instance_id: instanceId, worker_id: workerId, state: z.enum(instanceStates) }),
  ),
});
export type DeployedModel = z.infer<typeof deployedModel>;
export const deployedModelList = z.object({ data: z.array(deployedModel) });

export const adminWorker = z.object({
  worker_id: workerId,
  state: z.enum(workerStates),
  url: z.string(),
  version: z.string(),
  last_heartbeat_at: z.string().nullable(),
  devices: z.array(
    z.object({
      device_id: z.string(),
      kind: z.enum(deviceKinds),
      memory_bytes: z.number(),
      reserved_bytes: z.number(),
    }),
  ),
  /** Work queued on its links, and what of its disk cannot be used. */
  links: z.array(linkReport),
  problems: z.array(storeProblem),
  placements: z.array(
    z.object({
      checkpoint: checkpointDigest,
      tier: z.enum(tiers),
      state: z.enum(placementStates),
      bytes_present: z.number(),
    }),
  ),
});
export type AdminWorker = z.infer<typeof adminWorker>;
export const adminWorkerList = z.object({ data: z.array(adminWorker) });

/** GET /admin/v1/instances: live ones, and with `ended` so many of those that ended last, with their errors. */
export const instancesQuery = z.strictObject({
  ended: z.coerce.number().int().min(0).max(limits.listed_instances).default(0),
});

export const adminInstance = z.object({
  instance_id: instanceId,
  model_id: modelId,
  worker_id: workerId,
  device_id: z.string(),
  state: z.enum(instanceStates),
  memory_bytes: z.number(),
  slots: z.number().int(),
  /** Instances with an equal one give equal answers; null where that is not promised. */
  fingerprint: z.string().nullable(),
  active: z.number().int(),
  queued: z.number().int(),
  /** What the engine was at when the worker last reported: slots, cache, batches; null before it has said. */
  activity: engineActivity.nullable(),
  error: wireError.nullable(),
  created_at: z.string(),
  ready_at: z.string().nullable(),
  last_used_at: z.string().nullable(),
});
export type AdminInstance = z.infer<typeof adminInstance>;
export const adminInstanceList = z.object({ data: z.array(adminInstance) });

/** GET /admin/v1/loads: what the last loads spent their time on, the newest first; the query is `loadsQuery`. */
export const adminLoad = loadTrace.extend({ worker_id: workerId });
export type AdminLoad = z.infer<typeof adminLoad>;
export const adminLoadList = z.object({
  data: z.array(adminLoad),
  /** Workers that did not answer: their loads are missing. */
  silent: z.array(workerId),
});
export type AdminLoadList = z.infer<typeof adminLoadList>;

/** GET /admin/v1/queue: requests that wait for an instance at the gateway that answers, the longest first. */
export const waitingRequest = z.object({
  generation_id: generationId,
  model_id: modelId,
  /** Whose API key it came with. */
  tenant: z.string(),
  priority: z.enum(priorities),
  /** `loading`: an instance is being started. `queued`: memory or a slot has to become free first. */
  state: z.enum(["queued", "loading"]),
  /** Among those that wait for the same model, 1 for the next. */
  position: z.number().int(),
  waited_ms: z.number(),
  /** Estimated time until it is served; null for unknown. */
  eta_ms: z.number().nullable(),
  /** Time left until it is refused. */
  remaining_ms: z.number(),
  reason: z.string(),
});
export type WaitingRequest = z.infer<typeof waitingRequest>;
export const queueView = z.object({
  data: z.array(waitingRequest),
  /** Devices that others make room on for a model that has waited too long. */
  claims: z.array(z.object({ device: z.string(), model_id: modelId })),
});
export type QueueView = z.infer<typeof queueView>;

/** GET /admin/v1/estimates: what the scheduler has learned, and how wrong its estimates were. */
export const adminEstimate = z.object({
  quantity: z.enum(estimateQuantities),
  /** null: any worker, model or kind of device. */
  worker_id: workerId.nullable(),
  model_id: modelId.nullable(),
  device_kind: z.enum(deviceKinds).nullable(),
  /**
   * The link of a bandwidth; what the engine of a build or init began with (`cold`, `warm`, `built`, `resume`, with
   * `/disk` where bytes were read and `/busy` beside others at work); the tier of a start, or `parked`; else null.
   */
  detail: z.string().nullable(),
  /** Median of the last values: bytes per millisecond of a bandwidth, milliseconds otherwise; null where only errors count. */
  value: z.number().nullable(),
  observations: z.number().int(),
  /** Relative errors of the last estimates, as parts of what it took; null before the first. */
  error_p50: z.number().nullable(),
  error_p90: z.number().nullable(),
  updated_at: z.string(),
});
export type AdminEstimate = z.infer<typeof adminEstimate>;
export const adminEstimateList = z.object({ data: z.array(adminEstimate) });

/** Where the time of a start went, in milliseconds. Stages overlap: disk reading and model building run at once. */
export const timeline = z.strictObject({
  /** From the request's arrival until a worker was told to load or generate. */
  queue: z.number(),
  /** Start of the engine process, libraries linked. 0 when an instance was there. */
  process_start: z.number(),
  /** Reading the weights from disk; 0 when host memory had them or an instance was there. */
  disk_read: z.number(),
  /** Model skeleton, vocabulary and context. 0 when an instance was there. */
  model_build: z.number(),
  /** Return of a parked instance; 0 for a start or when an instance was there. */
  resume: z.number().default(0),
  prefill: z.number(),
  /** From the end of prefill to the first token at the gateway. */
  first_token: z.number(),
  /** From the request's arrival to the first token at the gateway: the TTFT. */
  total: z.number(),
});
export type Timeline = z.infer<typeof timeline>;

export const adminGeneration = z.object({
  generation_id: generationId,
  model_id: modelId,
  state: z.enum(generationStates),
  worker_id: workerId.nullable(),
  instance_id: instanceId.nullable(),
  epoch: z.number().int(),
  /** The gateway that feeds its placement; null for one that has none. */
  owner: gatewayId.nullable(),
  cold_start: z.boolean(),
  prompt_tokens: z.number().int().nullable(),
  completion_tokens: z.number().int().nullable(),
  finish_reason: z.enum(finishReasons).nullable(),
  error: wireError.nullable(),
  timeline_ms: timeline.nullable(),
  created_at: z.string(),
  finished_at: z.string().nullable(),
});
export type AdminGeneration = z.infer<typeof adminGeneration>;

/** A possibility that was looked at for a request and not taken. */
const explainedLoser = z.object({
  choice: z.string().nullable(),
  worker_id: workerId,
  device_id: z.string().nullable(),
  instance_id: instanceId.nullable(),
  estimate_ms: z.number().nullable(),
  why: z.string(),
});

export const explainedDecision = z.object({
  at: z.string(),
  /** How often it was made in a row. */
  times: z.number().int(),
  /** What was to be done: use, wait, queue, start, reclaim, hold; or why nothing could be. */
  action: z.string(),
  worker_id: workerId.nullable(),
  device_id: z.string().nullable(),
  instance_id: instanceId.nullable(),
  /** Farthest tier that the bytes of a start had to come from. */
  tier: z.enum(tiers).nullable(),
  /** Until the request was expected to be served. */
  estimate_ms: z.number().nullable(),
  reason: z.string(),
  losers: z.array(explainedLoser),
});
export type ExplainedDecision = z.infer<typeof explainedDecision>;

/** GET /admin/v1/requests/{id}: what became of a request, and why it ran where it did. */
export const explainedRequest = adminGeneration.extend({
  /** In their order; null when the gateway that took the request has not written them (yet). */
  decisions: z.array(explainedDecision).nullable(),
});
export type ExplainedRequest = z.infer<typeof explainedRequest>;
