/** One request for vectors or scores at a worker. Its stream is that of a generation, with `vectors` for `tokens`. */
import { z } from "zod";
import { generationId, instanceId } from "../ids.ts";
import { limits } from "../limits.ts";
import { protocolVersion } from "./protocol.ts";

/** A text, tokenized as the model wants it, or tokens as they are. */
export const embedInput = z.union([z.string(), z.array(z.number().int().min(0)).min(1)]);
export type EmbedInput = z.infer<typeof embedInput>;

export const embedFields = {
  /** With a query: documents, each scored for it. */
  inputs: z.array(embedInput).min(1).max(limits.embedding_inputs),
  query: z.string().optional(),
  /** Values of each vector, its first ones; all of them if left out. */
  dimensions: z.number().int().min(1).max(limits.embedding_values).optional(),
};

/** POST /v1/embeddings: compute and stream. */
export const embedRequest = z.strictObject({
  protocol_version: z.literal(protocolVersion),
  generation_id: generationId,
  /** As of a generation. */
  epoch: z.number().int().min(1),
  instance_id: instanceId,
  ...embedFields,
});
export type EmbedRequest = z.infer<typeof embedRequest>;

/** Base64 of a vector's values, 32-bit floating point in little-endian order. */
export const encodedVector = z.base64();
