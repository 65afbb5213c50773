/** Turns the updates of a generation into the text of server-sent events. Keeps where the stream stands. */
import { formatEventId, type GenerationId, type WorkerId } from "../../schema/ids.ts";
import { encodeSseComment, encodeSseFrame } from "../../schema/sse.ts";
import type { GenerationUpdate, WaitingUpdate } from "../dispatch/updates.ts";
import type { CompletionShape } from "./completion-shape.ts";

export class AnswerFrames {
  readonly #generation_id: GenerationId;
  readonly #shape: CompletionShape;
  readonly #includeUsage: boolean;
  #worker_id: WorkerId = "";
  #isOpen = false;
  #lastTokenIndex = -1;
  #state = `{"state":"queued"}`;

  constructor(generation_id: GenerationId, shape: CompletionShape, includeUsage: boolean) {
    this.#generation_id = generation_id;
    this.#shape = shape;
    this.#includeUsage = includeUsage;
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
      case "accepted":
        return this.#open();
      case "text":
        this.#lastTokenIndex = update.last_token_index;
        return update.text === "" ? "" : this.#open() + this.#event(this.#shape.textChunk(update.text));
      case "done":
        this.#lastTokenIndex = update.last_token_index;
        return (
          this.#open() +
          this.#event(this.#shape.lastChunk(update.text, update.finish_reason)) +
          (this.#includeUsage ? this.#event(this.#shape.usageChunk(update.usage)) : "") +
          encodeSseFrame({ data: "[DONE]" })
        );
    }
  }

  /** A comment that keeps the connection alive and says what the generation does. */
  keepAlive(): string {
    return encodeSseComment(this.#state);
  }

  #open(): string {
    if (this.#isOpen) return "";
    this.#isOpen = true;
    const opening = this.#shape.opening();
    return opening === null ? "" : this.#event(opening);
  }

  #event(body: object): string {
    const id = formatEventId({
      generation_id: this.#generation_id,
      worker_id: this.#worker_id,
      choice: 0,
      last_token_index: this.#lastTokenIndex,
    });
    return encodeSseFrame({ id, data: JSON.stringify(body) });
  }
}

function describe({ state, eta_ms, bytes_done, bytes_total }: WaitingUpdate): string {
  return JSON.stringify(
    bytes_total === null ? { state, eta_ms } : { state, eta_ms, bytes_done, bytes_total },
  );
}
