/** What happens in a move, for the gateway that asked for it. */
import { isLastMoveEvent, type MoveEvent } from "../../schema/cluster/moves.ts";
import type { EventReader } from "../ports.ts";

/** Rounds that a slow reader has not taken are worth less than the newest. */
const keptEvents = 64;

export class MoveEvents implements EventReader<MoveEvent> {
  readonly #events: MoveEvent[] = [];
  readonly #onLeave: () => void;
  #waiting: ((event: MoveEvent | null) => void) | null = null;
  #ended = false;
  #left = false;

  /** `onLeave`: the reader left before the end. */
  constructor(onLeave: () => void) {
    this.#onLeave = onLeave;
  }

  push(event: MoveEvent): void {
    if (this.#ended) return;
    this.#ended = isLastMoveEvent(event);
    if (this.#waiting) {
      this.#waiting(event);
      this.#waiting = null;
      return;
    }
    this.#events.push(event);
    const oldest = this.#events[0];
    if (this.#events.length > keptEvents && oldest?.type === "round") this.#events.shift();
  }

  next(): Promise<MoveEvent | null> {
    const event = this.#events.shift();
    if (event !== undefined) return Promise.resolve(event);
    if (this.#ended || this.#left) return Promise.resolve(null);
    return new Promise((resolve) => {
      this.#waiting = resolve;
    });
  }

  close(): void {
    if (this.#left) return;
    this.#left = true;
    this.#waiting?.(null);
    this.#waiting = null;
    if (!this.#ended) this.#onLeave();
  }
}
