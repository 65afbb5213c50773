/** What the two public shapes of an answer have in common: bodies are made of pieces, choice by choice. */
import type { AnswerFinishReason, Usage } from "../../schema/api/answers.ts";
import type { GenerationId } from "../../schema/ids.ts";
import type { FinishReason } from "../../schema/vocab.ts";
import type { AnswerPiece } from "../dispatch/updates.ts";

/** Builds the bodies of one answer; `id`, `created` and `model` are the same in all of them. Pieces come in order. */
export interface CompletionShape {
  /** The chunk before a choice's first piece; null where the shape has none. */
  opening(choice: number): object | null;
  /** null when the piece adds nothing that a client sees. */
  chunk(piece: AnswerPiece): object | null;
  /** The piece was held back until the end and may be empty. */
  lastChunk(piece: AnswerPiece, finish_reason: FinishReason, hadCalls: boolean): object;
  usageChunk(usage: Usage): object;
  /** One entry for each choice, in their order. */
  whole(choices: readonly WholeChoice[], usage: Usage): object;
}

export interface WholeChoice {
  readonly pieces: readonly AnswerPiece[];
  readonly finish_reason: FinishReason;
}

export interface AnswerIdentity {
  readonly generation_id: GenerationId;
  readonly model: string;
  /** Seconds since 1970. */
  readonly created: number;
  /** Chunks carry `usage: null` until the one that has it. */
  readonly include_usage: boolean;
  /** Whether the client asked for log-probabilities. */
  readonly logprobs: boolean;
}

/** One prompt, however many answers it has got. */
export function sumUsage(usages: readonly Usage[]): Usage {
  const prompt_tokens = usages[0]?.prompt_tokens ?? 0;
  const completion_tokens = usages.reduce((sum, usage) => sum + usage.completion_tokens, 0);
  const total_tokens = prompt_tokens + completion_tokens;
  // Several answers share one prompt: told is what the first of them found, not what it left for the others.
  const prompt_tokens_details = { cached_tokens: usages[0]?.prompt_tokens_details?.cached_tokens ?? 0 };
  return { prompt_tokens, completion_tokens, total_tokens, prompt_tokens_details };
}

/** A message that ends with calls wants their results: clients wait for this word. */
export function publicFinishReason(reason: FinishReason, hasToolCalls: boolean): AnswerFinishReason {
  return reason === "stop" && hasToolCalls ? "tool_calls" : reason;
}
