/** Turns the updates of a generation into the text of server-sent events. Keeps where the stream stands. */
import type { Usage } from "../../schema/api/answers.ts";
import { formatEventId, type GenerationId, type WorkerId } from "../../schema/ids.ts";
import { encodeSseComment, encodeSseFrame } from "../../schema/sse.ts";
import type { AnswerPiece, GenerationUpdate, WaitingUpdate } from "../dispatch/updates.ts";
import { type CompletionShape, sumUsage } from "./completion-shape.ts";

export interface AnswerFramesOptions {
  readonly generation_id: GenerationId;
  readonly shape: CompletionShape;
  readonly include_usage: boolean;
  /** How many answers the request gets. */
  readonly choices: number;
  /** Last token that the client has of an answer that it goes on to read; -1 when it has only its opening. */
  readonly after?: number | null;
}

type Position = Pick<AnswerPiece, "choice" | "last_token_index">;

const nothingSaid: Position = { choice: 0, last_token_index: -1 };

export class AnswerFrames {
  readonly #generation_id: GenerationId;
  readonly #shape: CompletionShape;
  readonly #includeUsage: boolean;
  readonly #choices: number;
  readonly #after: number | null;
  readonly #open = new Set<number>();
  readonly #usages: Usage[] = [];
  #worker_id: WorkerId = "";
  #state = `{"state":"queued"}`;

  constructor(options: AnswerFramesOptions) {
    this.#generation_id = options.generation_id;
    this.#shape = options.shape;
    this.#includeUsage = options.include_usage;
    this.#choices = options.choices;
    this.#after = options.after ?? null;
    if (this.#after !== null) this.#open.add(0);
  }

  /** Whether its client had a part of it from elsewhere. */
  get isContinued(): boolean {
    return this.#after !== null;
  }

  /** What the client gets for an update; "" when nothing. */
  encode(update: GenerationUpdate): string {
    switch (update.type) {
      case "waiting":
        this.#state = describe(update);
        return this.keepAlive();
      case "placed":
        this.#worker_id = update.worker_id;
        this.#state = `{"state":"running"}`;
        return "";
      case "moved":
        this.#worker_id = update.worker_id;
        return encodeSseComment(JSON.stringify({ state: "moved", why: update.why }));
      case "accepted":
        // Of several choices nobody knows here which one it is: each opens with its first piece.
        return this.#choices === 1 ? this.#opening(nothingSaid) : "";
      case "text": {
        const chunk = this.#shape.chunk(update);
        return chunk === null ? "" : this.#opening(update) + this.#event(chunk, update);
      }
      case "vectors":
        throw new Error("an answer has no vectors");
      case "done":
        this.#usages.push(update.usage);
        return this.#end(update);
    }
  }

  /** A comment that keeps the connection alive and says what the generation does. */
  keepAlive(): string {
    return encodeSseComment(this.#state);
  }

  /** Its id is one beyond the last token's: who has it has the end, too. */
  #end(update: Extract<GenerationUpdate, { type: "done" }>): string {
    const position = { choice: update.choice, last_token_index: update.last_token_index + 1 };
    const last = this.#shape.lastChunk(update, update.finish_reason, update.had_calls === true);
    const isTold = this.#after !== null && this.#after >= position.last_token_index;
    return (
      this.#opening(update) +
      (isTold ? "" : this.#event(last, position)) +
      (this.#usages.length === this.#choices ? this.#ending(position) : "")
    );
  }

  #opening(piece: Position): string {
    if (this.#open.has(piece.choice)) return "";
    this.#open.add(piece.choice);
    const opening = this.#shape.opening(piece.choice);
    return opening === null ? "" : this.#event(opening, { ...piece, last_token_index: -1 });
  }

  #ending(position: Position): string {
    const usage = this.#shape.usageChunk(sumUsage(this.#usages));
    return (this.#includeUsage ? this.#event(usage, position) : "") + encodeSseFrame({ data: "[DONE]" });
  }

  #event(body: object, { choice, last_token_index }: Position): string {
    const id = formatEventId({
      generation_id: this.#generation_id,
      worker_id: this.#worker_id,
      choice,
      last_token_index,
    });
    return encodeSseFrame({ id, data: JSON.stringify(body) });
  }
}

function describe({ state, position, eta_ms, bytes_done, bytes_total }: WaitingUpdate): string {
  const waiting = { state, position, eta_ms };
  return JSON.stringify(bytes_total === null ? waiting : { ...waiting, bytes_done, bytes_total });
}
