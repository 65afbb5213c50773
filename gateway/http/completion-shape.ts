/** The two public shapes of an answer: what chunks and whole responses of chat and text completions look like. */
import type { ChatChunk, ChatResponse, CompletionResponse, Usage } from "../../schema/api/chat.ts";
import type { GenerationId } from "../../schema/ids.ts";
import type { FinishReason } from "../../schema/vocab.ts";

/** Builds the bodies of one answer; `id`, `created` and `model` are the same in all of them. */
export interface CompletionShape {
  /** The chunk before the first text; null where the shape has none. */
  opening(): object | null;
  textChunk(text: string): object;
  /** `text` was held back until the end and may be empty. */
  lastChunk(text: string, finish_reason: FinishReason): object;
  usageChunk(usage: Usage): object;
  whole(text: string, finish_reason: FinishReason, usage: Usage): object;
}

export interface AnswerIdentity {
  readonly generation_id: GenerationId;
  readonly model: string;
  /** Seconds since 1970. */
  readonly created: number;
  /** Chunks carry `usage: null` until the one that has it. */
  readonly include_usage: boolean;
}

export function chatShape(answer: AnswerIdentity): CompletionShape {
  const { model, created } = answer;
  const id = `chatcmpl-${answer.generation_id}`;
  const noUsage = answer.include_usage ? { usage: null } : {};
  type Delta = ChatChunk["choices"][number]["delta"];
  const chunk = (choices: ChatChunk["choices"], usage: Pick<ChatChunk, "usage">): ChatChunk => ({
    id,
    object: "chat.completion.chunk",
    created,
    model,
    choices,
    ...usage,
  });
  const choice = (delta: Delta, finish_reason: FinishReason | null) => [
    { index: 0, delta, logprobs: null, finish_reason },
  ];
  return {
    opening: () => chunk(choice({ role: "assistant", content: "" }, null), noUsage),
    textChunk: (content) => chunk(choice({ content }, null), noUsage),
    lastChunk: (content, reason) => chunk(choice(content === "" ? {} : { content }, reason), noUsage),
    usageChunk: (usage) => chunk([], { usage }),
    whole: (content, finish_reason, usage): ChatResponse => ({
      id,
      object: "chat.completion",
      created,
      model,
      choices: [
        { index: 0, message: { role: "assistant", content, refusal: null }, logprobs: null, finish_reason },
      ],
      usage,
    }),
  };
}

export function textShape(answer: AnswerIdentity): CompletionShape {
  const { model, created } = answer;
  const id = `cmpl-${answer.generation_id}`;
  const noUsage = answer.include_usage ? { usage: null } : {};
  const body = (
    choices: CompletionResponse["choices"],
    usage: Pick<CompletionResponse, "usage">,
  ): CompletionResponse => ({ id, object: "text_completion", created, model, choices, ...usage });
  const choice = (text: string, finish_reason: FinishReason | null) => [
    { index: 0, text, logprobs: null, finish_reason },
  ];
  return {
    opening: () => null,
    textChunk: (text) => body(choice(text, null), noUsage),
    lastChunk: (text, reason) => body(choice(text, reason), noUsage),
    usageChunk: (usage) => body([], { usage }),
    whole: (text, reason, usage) => body(choice(text, reason), { usage }),
  };
}
