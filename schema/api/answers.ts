/** Public OpenAI-shaped answers to completion requests, whole and in chunks. */
import { z } from "zod";
import { finishReasons } from "../vocab.ts";

export const usage = z.object({
  prompt_tokens: z.number().int().min(0),
  completion_tokens: z.number().int().min(0),
  total_tokens: z.number().int().min(0),
  /** Of the prompt, what was found in the KV cache and not computed again. */
  prompt_tokens_details: z.object({ cached_tokens: z.number().int().min(0) }).optional(),
});
export type Usage = z.infer<typeof usage>;

const finishReason = z.enum([...finishReasons, "tool_calls"]).nullable();
export type AnswerFinishReason = z.infer<typeof finishReason>;

const choiceIndex = z.number().int().min(0);

const likelyToken = z.object({
  token: z.string(),
  logprob: z.number(),
  bytes: z.array(z.number().int()),
});

/** From the model's bare logits: before temperature, penalties, filters and grammar. */
const chatLogprobs = z.object({
  content: z.array(likelyToken.extend({ top_logprobs: z.array(likelyToken) })),
  refusal: z.null(),
});
export type ChatLogprobs = z.infer<typeof chatLogprobs>;

const chatToolCall = z.object({
  id: z.string(),
  type: z.literal("function"),
  function: z.object({ name: z.string(), arguments: z.string() }),
});
export type ChatToolCall = z.infer<typeof chatToolCall>;

export const chatResponse = z.object({
  id: z.string(),
  object: z.literal("chat.completion"),
  created: z.number().int(),
  model: z.string(),
  choices: z.array(
    z.object({
      index: choiceIndex,
      message: z.object({
        role: z.literal("assistant"),
        content: z.string().nullable(),
        refusal: z.null(),
        reasoning_content: z.string().optional(),
        tool_calls: z.array(chatToolCall).optional(),
      }),
      logprobs: chatLogprobs.nullable(),
      finish_reason: finishReason,
    }),
  ),
  usage,
});
export type ChatResponse = z.infer<typeof chatResponse>;

const chatToolCallDelta = z.object({
  index: z.number().int().min(0),
  id: z.string().optional(),
  type: z.literal("function").optional(),
  function: z.object({ name: z.string().optional(), arguments: z.string().optional() }),
});

export const chatChunk = z.object({
  id: z.string(),
  object: z.literal("chat.completion.chunk"),
  created: z.number().int(),
  model: z.string(),
  choices: z.array(
    z.object({
      index: choiceIndex,
      delta: z.object({
        role: z.literal("assistant").optional(),
        content: z.string().optional(),
        reasoning_content: z.string().optional(),
        tool_calls: z.array(chatToolCallDelta).optional(),
      }),
      logprobs: chatLogprobs.nullable(),
      finish_reason: finishReason,
    }),
  ),
  usage: usage.nullable().optional(),
});
export type ChatChunk = z.infer<typeof chatChunk>;

/** Parallel lists, one entry per token; `text_offset` counts characters of the answer. */
const textLogprobs = z.object({
  tokens: z.array(z.string()),
  token_logprobs: z.array(z.number()),
  top_logprobs: z.array(z.record(z.string(), z.number())).nullable(),
  text_offset: z.array(z.number().int()),
});
export type TextLogprobs = z.infer<typeof textLogprobs>;

export const completionResponse = z.object({
  id: z.string(),
  object: z.literal("text_completion"),
  created: z.number().int(),
  model: z.string(),
  choices: z.array(
    z.object({
      index: choiceIndex,
      text: z.string(),
      logprobs: textLogprobs.nullable(),
      finish_reason: finishReason,
    }),
  ),
  usage: usage.nullable().optional(),
});
export type CompletionResponse = z.infer<typeof completionResponse>;
