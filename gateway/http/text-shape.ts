/** Answers of the text completions API, whole and in chunks. */
import type { CompletionResponse, TextLogprobs, Usage } from "../../schema/api/answers.ts";
import type { TokenLogprob } from "../../schema/cluster/generate.ts";
import type { FinishReason } from "../../schema/vocab.ts";
import type { AnswerPiece } from "../dispatch/updates.ts";
import type { AnswerIdentity, CompletionShape, WholeChoice } from "./completion-shape.ts";

type Choice = CompletionResponse["choices"][number];

export class TextShape implements CompletionShape {
  readonly #answer: AnswerIdentity;
  /** Characters of a choice's tokens so far. */
  readonly #lengths = new Map<number, number>();

  constructor(answer: AnswerIdentity) {
    this.#answer = answer;
  }

  opening(): null {
    return null;
  }

  chunk(piece: AnswerPiece): CompletionResponse | null {
    const choice = this.#choice([piece], piece.choice, null);
    return choice.text === "" && choice.logprobs === null ? null : this.#chunk([choice]);
  }

  lastChunk(piece: AnswerPiece, finish_reason: FinishReason): CompletionResponse {
    return this.#chunk([this.#choice([piece], piece.choice, finish_reason)]);
  }

  usageChunk(usage: Usage): CompletionResponse {
    return { ...this.#body([]), usage };
  }

  whole(choices: readonly WholeChoice[], usage: Usage): CompletionResponse {
    const entries = choices.map(({ pieces, finish_reason }, index) =>
      this.#choice(pieces, index, finish_reason),
    );
    return { ...this.#body(entries), usage };
  }

  #body(choices: Choice[]): CompletionResponse {
    const { generation_id, created, model } = this.#answer;
    return { id: `cmpl-${generation_id}`, object: "text_completion", created, model, choices };
  }

  #chunk(choices: Choice[]): CompletionResponse {
    return { ...this.#body(choices), ...(this.#answer.include_usage ? { usage: null } : {}) };
  }

  #choice(pieces: readonly AnswerPiece[], index: number, finish_reason: FinishReason | null): Choice {
    const text = pieces.map((piece) => piece.text).join("");
    return { index, text, logprobs: this.#logprobs(pieces, index), finish_reason };
  }

  #logprobs(pieces: readonly AnswerPiece[], index: number): TextLogprobs | null {
    if (!this.#answer.logprobs) return null;
    const told = pieces
      .flatMap((piece) => piece.tokens)
      .flatMap(({ logprobs }) => (logprobs ? [logprobs] : []));
    if (told.length === 0) return null;
    const found: TextLogprobs = { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] };
    let offset = this.#lengths.get(index) ?? 0;
    for (const [own, ...likeliest] of told) {
      if (own === undefined) continue;
      const token = textOf(own);
      found.tokens.push(token);
      found.token_logprobs.push(own.logprob);
      found.top_logprobs?.push(Object.fromEntries(likeliest.map((entry) => [textOf(entry), entry.logprob])));
      found.text_offset.push(offset);
      offset += token.length;
    }
    this.#lengths.set(index, offset);
    return found;
  }
}

const decoder = new TextDecoder();

/** A token that is part of a character is told by its bytes, as the API does. */
function textOf({ bytes }: TokenLogprob): string {
  const text = decoder.decode(new Uint8Array(bytes));
  if (!text.includes("\ufffd")) return text;
  return `bytes:${bytes.map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")}`;
}
