/** Generations that may be read again: what they are at, and how they are ended. */
import { z } from "zod";
import { generationId } from "../ids.ts";
import { limits } from "../limits.ts";
import { finishReasons, generationStates } from "../vocab.ts";

/** GET /v1/generations/{id}/stream. */
export const streamQuery = z.object({
  /** Index of the last token that the client has; -1: none. */
  starting_after: z.coerce.number().int().min(-1).max(limits.output_tokens).default(-1),
});

/** The answer to a request that runs in the background, and GET /v1/generations/{id}. */
export const generationView = z.object({
  id: generationId,
  object: z.literal("generation"),
  model: z.string(),
  state: z.enum(generationStates),
  finish_reason: z.enum(finishReasons).nullable(),
  created: z.number().int(),
});
export type GenerationView = z.infer<typeof generationView>;

/** POST /v1/generations/{id}/cancel: false when it had ended. */
export const cancelView = z.object({ id: generationId, cancelled: z.boolean() });
export type CancelView = z.infer<typeof cancelView>;
