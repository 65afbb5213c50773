/**
 * Public OpenAI-shaped completion requests and responses. Unknown fields pass (clients send many); fields that
 * would change the answer and are not offered yet are refused by name instead of being ignored.
 */
import { z } from "zod";
import { SllmError } from "../error.ts";
import { modelId } from "../ids.ts";
import { limits } from "../limits.ts";
import { finishReasons, messageRoles } from "../vocab.ts";

const textPart = z.object({ type: z.literal("text"), text: z.string() });
const content = z.union([z.string(), z.array(textPart).max(limits.chat_messages)]);

export const chatMessage = z.looseObject({
  role: z.enum(messageRoles),
  content: content.transform((value) =>
    typeof value === "string" ? value : value.map((part) => part.text).join("\n"),
  ),
});

const stop = z
  .union([z.string(), z.array(z.string()).max(limits.stop_strings)])
  .nullish()
  .transform((value) => (value == null ? [] : typeof value === "string" ? [value] : value))
  .pipe(
    z.array(
      z
        .string()
        .min(1)
        .refine((text) => new TextEncoder().encode(text).length <= limits.stop_bytes, {
          message: `a stop string has at most ${limits.stop_bytes} bytes`,
        }),
    ),
  );

/** Fields that chat and text completions share. */
const generationFields = {
  model: modelId,
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
  max_tokens: z.number().int().min(1).max(limits.output_tokens).nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().gt(0).max(1).nullish(),
  top_k: z.number().int().min(0).max(1_000_000).nullish(),
  min_p: z.number().min(0).max(1).nullish(),
  seed: z.number().int().min(Number.MIN_SAFE_INTEGER).max(Number.MAX_SAFE_INTEGER).nullish(),
  stop,
  ignore_eos: z.boolean().nullish(),
  user: z.string().nullish(),
};

export const chatRequest = z.looseObject({
  ...generationFields,
  messages: z.array(chatMessage).min(1).max(limits.chat_messages),
  max_completion_tokens: z.number().int().min(1).max(limits.output_tokens).nullish(),
});
export type ChatRequest = z.output<typeof chatRequest>;

export const completionRequest = z.looseObject({
  ...generationFields,
  prompt: z.union([z.string(), z.tuple([z.string()]).transform(([text]) => text)]),
});
export type CompletionRequest = z.output<typeof completionRequest>;

/** Parameter -> true when the value asks for nothing beyond what is offered. */
const neutralValues: Record<string, (value: unknown) => boolean> = {
  n: (v) => v === 1,
  best_of: (v) => v === 1,
  echo: (v) => v === false,
  suffix: () => false,
  logprobs: (v) => v === false,
  top_logprobs: (v) => v === 0,
  presence_penalty: (v) => v === 0,
  frequency_penalty: (v) => v === 0,
  repetition_penalty: (v) => v === 1,
  logit_bias: (v) => typeof v === "object" && v !== null && Object.keys(v).length === 0,
  tools: (v) => Array.isArray(v) && v.length === 0,
  tool_choice: (v) => v === "none" || v === "auto",
  functions: (v) => Array.isArray(v) && v.length === 0,
  response_format: (v) => typeof v === "object" && v !== null && "type" in v && v.type === "text",
  modalities: (v) => Array.isArray(v) && v.every((m) => m === "text"),
  audio: () => false,
};

/** Throws `unsupported_parameter` for a parameter that would have to change the answer. */
export function refuseUnsupported(body: Readonly<Record<string, unknown>>): void {
  for (const [name, isNeutral] of Object.entries(neutralValues)) {
    const value = body[name];
    if (value === undefined || value === null || isNeutral(value)) continue;
    throw new SllmError("unsupported_parameter", `${name}: this value is not supported`, { param: name });
  }
}

export const usage = z.object({
  prompt_tokens: z.number().int().min(0),
  completion_tokens: z.number().int().min(0),
  total_tokens: z.number().int().min(0),
});
export type Usage = z.infer<typeof usage>;

const finishReason = z.enum(finishReasons).nullable();

export const chatResponse = z.object({
  id: z.string(),
  object: z.literal("chat.completion"),
  created: z.number().int(),
  model: z.string(),
  choices: z.array(
    z.object({
      index: z.number().int(),
      message: z.object({ role: z.literal("assistant"), content: z.string(), refusal: z.null() }),
      logprobs: z.null(),
      finish_reason: finishReason,
    }),
  ),
  usage,
});
export type ChatResponse = z.infer<typeof chatResponse>;

export const chatChunk = z.object({
  id: z.string(),
  object: z.literal("chat.completion.chunk"),
  created: z.number().int(),
  model: z.string(),
  choices: z.array(
    z.object({
      index: z.number().int(),
      delta: z.object({ role: z.literal("assistant").optional(), content: z.string().optional() }),
      logprobs: z.null(),
      finish_reason: finishReason,
    }),
  ),
  usage: usage.nullable().optional(),
});
export type ChatChunk = z.infer<typeof chatChunk>;

const textChoice = z.object({
  index: z.number().int(),
  text: z.string(),
  logprobs: z.null(),
  finish_reason: finishReason,
});

export const completionResponse = z.object({
  id: z.string(),
  object: z.literal("text_completion"),
  created: z.number().int(),
  model: z.string(),
  choices: z.array(textChoice),
  usage: usage.nullable().optional(),
});
export type CompletionResponse = z.infer<typeof completionResponse>;
