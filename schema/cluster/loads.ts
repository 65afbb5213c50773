/** What a load spent its time on, stage by stage: kept by the worker, one JSON object per load. */
import { z } from "zod";
import { wireError } from "../error.ts";
import { checkpointDigest, instanceId, modelId } from "../ids.ts";
import { limits } from "../limits.ts";

/**
 * Stages of a load. `process`: the engine process starts, or one of the reserve is taken. `link_wait`: other loads use
 * the disk. `reserve`: room in the arena, copies evicted for it. `read`: disk to memory, every chunk checked.
 * `header_check`: header.gguf compared with its digest. `model_build`: skeleton, vocabulary, context. `attach`: an
 * engine that has its model maps the weights. `weights_wait`:
 * the engine has built its model and waits for bytes.
 */
export const loadStages = [
  "lookup",
  "process",
  "link_wait",
  "reserve",
  "read",
  "header_check",
  "model_build",
  "attach",
  "weights_wait",
] as const;
export type LoadStage = (typeof loadStages)[number];

const ms = z.number().min(0);
const bytes = z.number().int().min(0);

export const tracedStage = z.strictObject({
  stage: z.enum(loadStages),
  /** From the arrival of the load request. */
  start_ms: ms,
  end_ms: ms,
  /** Stages without whose end it could not begin. */
  after: z.array(z.enum(loadStages)),
});
export type TracedStage = z.infer<typeof tracedStage>;

export const loadTrace = z.strictObject({
  instance_id: instanceId,
  model_id: modelId,
  checkpoint: checkpointDigest,
  /** ISO 8601. */
  started_at: z.string(),
  outcome: z.enum(["ready", "failed", "stopped"]),
  error: wireError.nullable(),
  total_ms: ms,
  /** `disk`: read for this load. `shared`: read for another load that was under way. `host`: host memory held it. */
  source: z.enum(["disk", "shared", "host"]).nullable(),
  bytes: z.strictObject({
    weights: bytes,
    /** Read from disk for this load: past the page cache, out of it, and through it. */
    direct: bytes,
    cached: bytes,
    buffered: bytes,
    /** Sent to discrete devices. */
    uploaded: bytes,
  }),
  /** What the store notes of the read, times from its begin; null when nothing was read for this load. */
  read: z
    .strictObject({
      first_read_ms: ms,
      first_verified_ms: ms,
      last_read_ms: ms,
      /** Summed over its threads: waiting for memory, making it ready, digests. */
      memory_wait_ms: ms,
      fault_ms: ms,
      digest_ms: ms,
      /** Reads that were interrupted or short, and chunks that were read again for a wrong digest. */
      retries: bytes,
      rereads: bytes,
    })
    .nullable(),
  /** In the order of their beginnings. */
  stages: z.array(tracedStage).max(64),
  /** What the total was spent on, without gaps: each part could not begin before the one in front had ended. */
  critical_path: z.array(z.strictObject({ stage: z.enum([...loadStages, "other"]), ms })).max(128),
});
export type LoadTrace = z.infer<typeof loadTrace>;

/** Query of GET /v1/loads at a worker and GET /admin/v1/loads at a gateway: the newest first. */
export const loadsQuery = z.strictObject({
  model_id: modelId.optional(),
  instance_id: instanceId.optional(),
  limit: z.coerce.number().int().min(1).max(limits.kept_loads).default(20),
});
export type LoadsQuery = z.infer<typeof loadsQuery>;

export const loadTraceList = z.strictObject({ data: z.array(loadTrace) });
