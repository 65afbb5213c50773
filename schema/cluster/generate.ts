/** One generation at a worker: the request and the events of its stream. */
import { z } from "zod";
import { wireError } from "../error.ts";
import { checkpointDigest, generationId, instanceId } from "../ids.ts";
import { limits } from "../limits.ts";
import { finishReasons } from "../vocab.ts";
import { answerFormat, messageDelta, promptInput } from "./conversation.ts";
import { encodedVector } from "./embed.ts";
import { protocolVersion } from "./protocol.ts";

export { type PromptInput, promptInput } from "./conversation.ts";

/** What is left out changes nothing. sllm.h says in which order it all applies. */
export const samplingParams = z.strictObject({
  /** 0 is greedy. */
  temperature: z.number().min(0).max(2),
  /** 0 keeps all. */
  top_k: z.number().int().min(0),
  top_p: z.number().gt(0).max(1),
  min_p: z.number().min(0).max(1),
  /** The draw of every position is a function of this and the position alone. 64 bits as a decimal string. */
  seed: z.string().regex(/^\d{1,20}$/),
  typical_p: z.number().gt(0).max(1).optional(),
  /** Of the last `repeat_last_n` tokens, prompt included. */
  repeat_penalty: z.number().gt(0).max(10).optional(),
  repeat_last_n: z.number().int().min(0).max(limits.repeat_last_n).optional(),
  /** Of the tokens in the output. */
  presence_penalty: z.number().min(-2).max(2).optional(),
  frequency_penalty: z.number().min(-2).max(2).optional(),
  logit_bias: z
    .array(z.strictObject({ token: z.number().int().min(0), bias: z.number() }))
    .max(limits.logit_bias)
    .optional(),
  /** So many likeliest tokens are told beside each token; left out: no log-probabilities. */
  top_logprobs: z.number().int().min(0).max(limits.top_logprobs).optional(),
});
export type SamplingParams = z.infer<typeof samplingParams>;

const tokens = z.array(z.number().int().min(0)).max(limits.context_tokens);

/**
 * A generation goes on after what it had before, here or elsewhere: templates are never rendered again, so the prompt
 * travels as the tokens that `started` told. Penalties, grammar, stop strings, characters and calls go on where they
 * were, whatever the cut splits; on engines of equal fingerprint the rest is the very rest of the undisturbed answer.
 */
export const resumedOutput = z.strictObject({ prompt: tokens.min(1), output: tokens });
export type ResumedOutput = z.infer<typeof resumedOutput>;

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
  /** Resumed output included; null: until the context is full. */
  max_tokens: z.number().int().min(1).max(limits.output_tokens).nullable(),
  ignore_eos: z.boolean(),
  format: answerFormat.optional(),
  /** Checkpoint of the LoRA adapter that answers; loaded on first use. Left out: the model as it is. */
  adapter: checkpointDigest.optional(),
  /** With it `prompt` only says how the answer is read. Errors: `invalid_request`, `context_length_exceeded`. */
  resume: resumedOutput.optional(),
  /** Ask for the prompt's tokens in `started`, for a later `resume`. */
  tell_prompt: z.boolean().optional(),
});
export type GenerateRequest = z.infer<typeof generateRequest>;

/** From the model's bare logits. Bytes, because a token may be part of a character. */
export const tokenLogprob = z.strictObject({
  token: z.number().int(),
  logprob: z.number(),
  bytes: z.array(z.number().int().min(0).max(255)),
});
export type TokenLogprob = z.infer<typeof tokenLogprob>;

/** One output token. Text that could still become a stop string or half a character is held back to a later one. */
export const outputToken = z.strictObject({
  token: z.number().int(),
  text: z.string(),
  /** The token's own, then those of the likeliest. */
  logprobs: z.array(tokenLogprob).optional(),
});
export type OutputToken = z.infer<typeof outputToken>;

export const generationTimings = z.strictObject({
  queue_ms: z.number(),
  prefill_ms: z.number(),
  decode_ms: z.number(),
});
export type GenerationTimings = z.infer<typeof generationTimings>;

/** Of the prompt, found in the KV cache; left out: none. */
export const cached_tokens = z.number().int().min(0).optional();

export const startedFields = {
  prompt_tokens: z.number().int().min(0),
  cached_tokens,
  /** The prompt's tokens, when asked for. */
  prompt: tokens.optional(),
  /** Text of the resumed output as far as it was certain with its last token; left out when there is none. */
  resumed_text: z.string().optional(),
};

/**
 * The stream: `started` once, `tokens` (or `vectors`) with consecutive indices,
 * then exactly one of `done` and `error`.
 */
export const generationEvent = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("started"), ...startedFields }),
  z.strictObject({
    type: z.literal("tokens"),
    choice: z.literal(0),
    /** Index of the first token of `tokens`, from 0 per choice. */
    first_index: z.number().int().min(0),
    tokens: z.array(outputToken).min(1),
    /** What the tokens add to the message; left out where the message is the text itself. */
    delta: messageDelta.optional(),
  }),
  z.strictObject({
    type: z.literal("vectors"),
    /** Input of the first of `vectors`. */
    first_index: z.number().int().min(0),
    vectors: z.array(encodedVector).min(1),
  }),
  z.strictObject({
    type: z.literal("done"),
    finish_reason: z.enum(finishReasons),
    /** Text held back until the end; belongs to the last token. */
    text: z.string(),
    delta: messageDelta.optional(),
    prompt_tokens: z.number().int().min(0),
    cached_tokens,
    completion_tokens: z.number().int().min(0),
    timings: generationTimings,
  }),
  z.strictObject({ type: z.literal("error"), error: wireError }),
]);
export type GenerationEvent = z.infer<typeof generationEvent>;

/** DELETE /v1/generations/{id}: false when the worker does not know it or it had ended. */
export const cancelResponse = z.strictObject({ generation_id: generationId, cancelled: z.boolean() });
export type CancelResponse = z.infer<typeof cancelResponse>;
