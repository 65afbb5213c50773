/** One generation at a worker: the request and the events of its stream. */
import { z } from "zod";
import { wireError } from "../error.ts";
import { generationId, instanceId } from "../ids.ts";
import { limits } from "../limits.ts";
import { finishReasons, messageRoles } from "../vocab.ts";
import { protocolVersion } from "./protocol.ts";

export const promptInput = z.discriminatedUnion("kind", [
  /** Rendered by the model's chat template in the engine. */
  z.strictObject({
    kind: z.literal("messages"),
    messages: z.array(z.strictObject({ role: z.enum(messageRoles), content: z.string() })).min(1),
  }),
  z.strictObject({ kind: z.literal("text"), text: z.string() }),
]);
export type PromptInput = z.infer<typeof promptInput>;

export const samplingParams = z.strictObject({
  /** 0 is greedy. */
  temperature: z.number().min(0).max(2),
  /** 0 keeps all. */
  top_k: z.number().int().min(0),
  top_p: z.number().gt(0).max(1),
  min_p: z.number().min(0).max(1),
  /** The draw of every position is a function of this and the position alone. 64 bits as a decimal string. */
  seed: z.string().regex(/^\d{1,20}$/),
});
export type SamplingParams = z.infer<typeof samplingParams>;

/** POST /v1/generations: run and stream. */
export const generateRequest = z.strictObject({
  protocol_version: z.literal(protocolVersion),
  generation_id: generationId,
  /** A worker refuses a generation with an epoch below one it has seen. */
  epoch: z.number().int().min(1),
  instance_id: instanceId,
  prompt: promptInput,
  sampling: samplingParams,
  stop: z.array(z.string().min(1)).max(limits.stop_strings),
  /** null: until the context is full. */
  max_tokens: z.number().int().min(1).max(limits.output_tokens).nullable(),
  ignore_eos: z.boolean(),
});
export type GenerateRequest = z.infer<typeof generateRequest>;

/** One output token. Text that could still become a stop string or half a character is held back to a later one. */
export const outputToken = z.strictObject({ token: z.number().int(), text: z.string() });
export type OutputToken = z.infer<typeof outputToken>;

export const generationTimings = z.strictObject({
  queue_ms: z.number(),
  prefill_ms: z.number(),
  decode_ms: z.number(),
});
export type GenerationTimings = z.infer<typeof generationTimings>;

/** The stream: `started` once, `tokens` with consecutive indices, then exactly one of `done` and `error`. */
export const generationEvent = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("started"), prompt_tokens: z.number().int().min(0) }),
  z.strictObject({
    type: z.literal("tokens"),
    choice: z.literal(0),
    /** Index of the first token of `tokens`, from 0 per choice. */
    first_index: z.number().int().min(0),
    tokens: z.array(outputToken).min(1),
  }),
  z.strictObject({
    type: z.literal("done"),
    finish_reason: z.enum(finishReasons),
    /** Text held back until the end; belongs to the last token. */
    text: z.string(),
    prompt_tokens: z.number().int().min(0),
    completion_tokens: z.number().int().min(0),
    timings: generationTimings,
  }),
  z.strictObject({ type: z.literal("error"), error: wireError }),
]);
export type GenerationEvent = z.infer<typeof generationEvent>;

/** DELETE /v1/generations/{id}: false when the worker does not know it or it had ended. */
export const cancelResponse = z.strictObject({ generation_id: generationId, cancelled: z.boolean() });
export type CancelResponse = z.infer<typeof cancelResponse>;
