/** Answers of the chat API: messages with content, reasoning and tool calls, whole and in chunks. */
import type { ChatChunk, ChatLogprobs, ChatResponse, ChatToolCall } from "../../schema/api/answers.ts";
import type { MessageDelta } from "../../schema/cluster/conversation.ts";
import type { TokenLogprob } from "../../schema/cluster/generate.ts";
import type { AnswerPiece } from "../dispatch/updates.ts";
import {
  type AnswerIdentity,
  type CompletionShape,
  publicFinishReason,
  type WholeChoice,
} from "./completion-shape.ts";

type ChunkChoice = ChatChunk["choices"][number];

export class ChatShape implements CompletionShape {
  readonly #answer: AnswerIdentity;
  /** Choices with tool calls so far. */
  readonly #calling = new Set<number>();

  constructor(answer: AnswerIdentity) {
    this.#answer = answer;
  }

  opening(choice: number): ChatChunk {
    const delta = { role: "assistant", content: "" } as const;
    return this.#chunk([{ index: choice, delta, logprobs: null, finish_reason: null }]);
  }

  chunk(piece: AnswerPiece): ChatChunk | null {
    const delta = this.#toDelta(piece);
    const told = this.#logprobs([piece]);
    const logprobs = told?.content.length === 0 ? null : told;
    if (Object.keys(delta).length === 0 && logprobs === null) return null;
    return this.#chunk([{ index: piece.choice, delta, logprobs, finish_reason: null }]);
  }

  lastChunk(piece: AnswerPiece, reason: "stop" | "length", hadCalls: boolean): ChatChunk {
    const delta = this.#toDelta(piece);
    const finish_reason = publicFinishReason(reason, hadCalls || this.#calling.has(piece.choice));
    return this.#chunk([{ index: piece.choice, delta, logprobs: null, finish_reason }]);
  }

  usageChunk(usage: ChatResponse["usage"]): ChatChunk {
    return { ...this.#chunk([]), usage };
  }

  whole(choices: readonly WholeChoice[], usage: ChatResponse["usage"]): ChatResponse {
    return {
      id: this.#id,
      object: "chat.completion",
      created: this.#answer.created,
      model: this.#answer.model,
      choices: choices.map((choice, index) => {
        const message = this.#toMessage(choice.pieces, index);
        const finish_reason = publicFinishReason(choice.finish_reason, message.tool_calls !== undefined);
        return { index, message, logprobs: this.#logprobs(choice.pieces), finish_reason };
      }),
      usage,
    };
  }

  get #id(): string {
    return `chatcmpl-${this.#answer.generation_id}`;
  }

  #chunk(choices: ChunkChoice[]): ChatChunk {
    const { created, model, include_usage } = this.#answer;
    const usage = include_usage ? { usage: null } : {};
    return { id: this.#id, object: "chat.completion.chunk", created, model, choices, ...usage };
  }

  /** Follows from the generation alone, so that it is the same wherever the answer is made. */
  #callId(choice: number, index: number): string {
    return `call_${this.#answer.generation_id}_${choice}_${index}`;
  }

  #toDelta(piece: AnswerPiece): ChunkChoice["delta"] {
    const { content, reasoning_content, tool_calls } = deltaOf(piece);
    if (tool_calls) this.#calling.add(piece.choice);
    return {
      ...(content ? { content } : {}),
      ...(reasoning_content ? { reasoning_content } : {}),
      ...(tool_calls ? { tool_calls: tool_calls.map((call) => this.#toCallDelta(piece.choice, call)) } : {}),
    };
  }

  #toCallDelta(choice: number, call: NonNullable<MessageDelta["tool_calls"]>[number]) {
    const { index, name } = call;
    if (name === undefined) return { index, function: { arguments: call.arguments ?? "" } };
    const begun = { name, arguments: call.arguments ?? "" };
    return { index, id: this.#callId(choice, index), type: "function" as const, function: begun };
  }

  #toMessage(pieces: readonly AnswerPiece[], choice: number): ChatResponse["choices"][number]["message"] {
    let content = "";
    let reasoning_content = "";
    const calls: ChatToolCall[] = [];
    for (const piece of pieces) {
      const delta = deltaOf(piece);
      content += delta.content ?? "";
      reasoning_content += delta.reasoning_content ?? "";
      for (const { index, name, arguments: text } of delta.tool_calls ?? []) {
        calls[index] ??= {
          id: this.#callId(choice, index),
          type: "function",
          function: { name: name ?? "", arguments: "" },
        };
        calls[index].function.arguments += text ?? "";
      }
    }
    return {
      role: "assistant",
      content: content === "" && calls.length > 0 ? null : content,
      refusal: null,
      ...(reasoning_content === "" ? {} : { reasoning_content }),
      ...(calls.length === 0 ? {} : { tool_calls: calls }),
    };
  }

  #logprobs(pieces: readonly AnswerPiece[]): ChatLogprobs | null {
    if (!this.#answer.logprobs) return null;
    const content = pieces.flatMap((piece) =>
      piece.tokens.flatMap(({ logprobs }) => {
        const [own, ...likeliest] = logprobs ?? [];
        return own ? [{ ...toLikely(own), top_logprobs: likeliest.map(toLikely) }] : [];
      }),
    );
    return { content, refusal: null };
  }
}

function deltaOf(piece: AnswerPiece): MessageDelta {
  return piece.delta ?? { content: piece.text };
}

const decoder = new TextDecoder();

/** A token that is part of a character reads as U+FFFD; its bytes tell what it is. */
function toLikely({ logprob, bytes }: TokenLogprob) {
  return { token: decoder.decode(new Uint8Array(bytes)), logprob, bytes };
}
