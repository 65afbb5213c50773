/** Loading and unloading of instances at a worker. */
import { z } from "zod";
import { wireError } from "../error.ts";
import { checkpointDigest, instanceId, modelId } from "../ids.ts";
import { limits } from "../limits.ts";
import { protocolVersion } from "./protocol.ts";

/** How the KV cache of an instance is made; sllm.h says what both mean. */
export const kvSettings = {
  /** Tokens that the cache holds for all slots together, at least one context; a context for each slot if left out. */
  kv_tokens: z
    .number()
    .int()
    .min(16)
    .max(limits.context_tokens * limits.slots)
    .optional(),
  /** Answers depend on their request alone, to the last bit. Not together with `kv_tokens`. */
  deterministic: z.boolean().optional(),
};

/**
 * POST /v1/instances: start an instance and stream its load events; the same instance_id again attaches to the
 * load in progress (or answers its end), and resumes a parked instance. The load goes on when the reader leaves.
 */
export const loadRequest = z.strictObject({
  protocol_version: z.literal(protocolVersion),
  instance_id: instanceId,
  model_id: modelId,
  checkpoint: checkpointDigest,
  device_id: z.string().min(1).max(64),
  context_tokens: z.number().int().min(16).max(limits.context_tokens),
  slots: z.number().int().min(1).max(limits.slots),
  ...kvSettings,
  /** Memory booked for adapters from the start; more is booked as they come. 0 if left out. */
  adapter_bytes: z.number().int().min(0).max(limits.weights_bytes).optional(),
});
export type LoadRequest = z.infer<typeof loadRequest>;

/** Where the time of a load went; stages overlap. */
export const loadTimings = z.strictObject({
  /** Spawn until the engine process said hello. */
  process_start_ms: z.number(),
  /** First to last byte from disk; 0 when host memory held the weights. */
  disk_read_ms: z.number(),
  disk_read_bytes: z.number(),
  /** Model skeleton, vocabulary and context in the engine; 0 when they were there. */
  model_build_ms: z.number(),
  /** First byte in host memory until the last was on its discrete device, and how many; absent on the processors. */
  upload_ms: z.number().optional(),
  upload_bytes: z.number().optional(),
  /** From the request to ready for an instance that was parked; 0 for a start. */
  resume_ms: z.number().default(0),
  /** From the load request to ready. */
  total_ms: z.number(),
});
export type LoadTimings = z.infer<typeof loadTimings>;

export const loadEvent = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("progress"),
    bytes_done: z.number(),
    bytes_total: z.number(),
    /** Estimated time until ready; null while unknown. */
    eta_ms: z.number().nullable(),
    /** Place in the queue of a link, 1 for the next; absent once the bytes move. */
    waiting_for: z.strictObject({ link: z.string(), position: z.number().int().min(1) }).optional(),
  }),
  z.strictObject({ type: z.literal("ready"), timings: loadTimings }),
  z.strictObject({ type: z.literal("failed"), error: wireError }),
]);
export type LoadEvent = z.infer<typeof loadEvent>;

/**
 * POST /v1/instances/{id}/park: weights and KV cache of an idle instance are let go, the process stays. Answers when
 * that is done; 409 `instance_busy` when it is in use.
 */
export const parkResponse = z.strictObject({ instance_id: instanceId, state: z.literal("parked") });
export type ParkResponse = z.infer<typeof parkResponse>;

/** DELETE /v1/instances/{id}?if_idle=1 answers when the process is gone; 409 `instance_busy` when it is in use. */
export const unloadResponse = z.strictObject({ instance_id: instanceId, state: z.literal("gone") });
export type UnloadResponse = z.infer<typeof unloadResponse>;
