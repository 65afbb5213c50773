/** One generation at a worker: the request and the events of its stream. */
import { z } from "zod";
import { wireError } from "../error.ts";
import { checkpointDigest, gatewayId, generationId, instanceId, modelId, workerId } from "../ids.ts";
import { limits } from "../limits.ts";
import { answerShapes, finishReasons, priorities } from "../vocab.ts";
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

/** A generation's epoch and its owner, the gateway that feeds its placement, change together. */
export const epoch = z
  .number()
  .int()
  .min(1)
  .max(2 ** 31 - 1);

/** Of the public request, for gateways that meet the generation at its worker; workers only keep it. */
export const generationOrigin = z.strictObject({
  /** The deployment, whatever name the client used for it. */
  model_id: modelId,
  tenant: z.string().max(limits.tenant_chars),
  created_at_ms: z.number(),
  /** What the client gets. */
  shape: z.enum(answerShapes),
  /** As the client named it. */
  model: z.string(),
  include_usage: z.boolean(),
  /** How it is queued, wherever it has to wait; normal if left out. */
  priority: z.enum(priorities).optional(),
  /** From `created_at_ms` until it must have its first instance; left out: as long as gateways hold requests. */
  deadline_ms: z.number().int().min(1).max(limits.deadline_ms).optional(),
});
export type GenerationOrigin = z.infer<typeof generationOrigin>;

/** What decides a generation beside its prompt's tokens: with them and its output it can go on anywhere. */
export const generationSettings = z.strictObject({
  prompt: promptInput,
  sampling: samplingParams,
  stop: z.array(z.string().min(1)).max(limits.stop_strings),
  /** Resumed output included; null: until the context is full. */
  max_tokens: z.number().int().min(1).max(limits.output_tokens).nullable(),
  ignore_eos: z.boolean(),
  format: answerFormat.optional(),
  /** Checkpoint of the LoRA adapter that answers; loaded on first use. Left out: the model as it is. */
  adapter: checkpointDigest.optional(),
  /** How long it is kept without a reader, running or ended; `orphan_grace_ms` if left out. */
  grace_ms: z.number().int().min(0).max(limits.resume_ms).optional(),
  origin: generationOrigin.optional(),
});
export type GenerationSettings = z.infer<typeof generationSettings>;

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

/**
 * Output as it was told, to be told again: to readers it is the same wherever they read it. `delta` adds up over the
 * tokens before; a reader can begin after the last token of any event.
 */
export const tokensEvent = z.strictObject({
  type: z.literal("tokens"),
  choice: z.literal(0),
  /** Index of the first token of `tokens`, from 0 per choice. */
  first_index: z.number().int().min(0),
  tokens: z.array(outputToken).min(1),
  /** What the tokens add to the message; left out where the message is the text itself. */
  delta: messageDelta.optional(),
});
export type TokensEvent = z.infer<typeof tokensEvent>;

/** Tokens from `first_index` on, up to the next hop's, were made there in this epoch. */
export const generationHop = z.strictObject({
  worker_id: workerId,
  epoch,
  first_index: z.number().int().min(0),
});
export type GenerationHop = z.infer<typeof generationHop>;

/** What a generation that goes on brings for its readers: where it has been, and its output as it was told. */
export const generationHistory = z.strictObject({
  hops: z.array(generationHop).max(limits.generation_hops),
  /** Consecutive up to the last token of the resumed output; perhaps without its beginning. */
  told: z.array(tokensEvent),
});
export type GenerationHistory = z.infer<typeof generationHistory>;

/** POST /v1/generations: run and stream. */
export const generateRequest = generationSettings.extend({
  protocol_version: z.literal(protocolVersion),
  generation_id: generationId,
  /** A worker refuses a generation with an epoch below one it has seen (`stale_generation`). */
  epoch,
  owner: gatewayId.optional(),
  instance_id: instanceId,
  /** With it `prompt` only says how the answer is read. Errors: `invalid_request`, `context_length_exceeded`. */
  resume: resumedOutput.optional(),
  history: generationHistory.optional(),
  /** Ask for the prompt's tokens in `started`, for a later `resume`. */
  tell_prompt: z.boolean().optional(),
});
export type GenerateRequest = z.infer<typeof generateRequest>;

export const generationTimings = z.strictObject({
  queue_ms: z.number(),
  prefill_ms: z.number(),
  decode_ms: z.number(),
});
export type GenerationTimings = z.infer<typeof generationTimings>;

/** Of the prompt, found in the KV cache; left out: none. */
export const cached_tokens = z.number().int().min(0).optional();

/** Where a generation has gone, and in which epoch it runs there. */
export const generationPlace = z.strictObject({
  epoch,
  worker_id: workerId,
  url: z.url(),
  instance_id: instanceId,
});
export type GenerationPlace = z.infer<typeof generationPlace>;

/** The generation goes on elsewhere, from the token after the last one told here. Kept for the grace time. */
export const movedEvent = z.strictObject({ type: z.literal("moved"), to: generationPlace });

export const startedFields = {
  prompt_tokens: z.number().int().min(0),
  cached_tokens,
  /** The prompt's tokens, when asked for. */
  prompt: tokens.optional(),
  /** Text of the resumed output as far as it was certain with its last token; left out when there is none. */
  resumed_text: z.string().optional(),
};

export const doneEvent = z.strictObject({
  type: z.literal("done"),
  finish_reason: z.enum(finishReasons),
  /** Text held back until the end; belongs to the last token. */
  text: z.string(),
  delta: messageDelta.optional(),
  prompt_tokens: z.number().int().min(0),
  cached_tokens,
  completion_tokens: z.number().int().min(0),
  timings: generationTimings,
});
export type DoneEvent = z.infer<typeof doneEvent>;

/**
 * The stream: `started` once, `tokens` (or `vectors`) with consecutive indices,
 * then exactly one of `done`, `error` and `moved`.
 */
export const generationEvent = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("started"), ...startedFields }),
  tokensEvent,
  z.strictObject({
    type: z.literal("vectors"),
    /** Input of the first of `vectors`. */
    first_index: z.number().int().min(0),
    vectors: z.array(encodedVector).min(1),
  }),
  doneEvent,
  z.strictObject({ type: z.literal("error"), error: wireError }),
  movedEvent,
]);
export type GenerationEvent = z.infer<typeof generationEvent>;

/** True for the event that nothing follows. */
export function isLastEvent(event: GenerationEvent): boolean {
  return event.type === "done" || event.type === "error" || event.type === "moved";
}
