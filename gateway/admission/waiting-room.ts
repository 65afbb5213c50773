/** Bounds the requests that wait for an instance at this gateway. */
import { SllmError } from "../../schema/error.ts";

/** When a client that found the room full should come back. */
const retryAfter_ms = 1_000;

export class WaitingRoom {
  readonly #capacity: number;
  #waiting = 0;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  get waiting(): number {
    return this.#waiting;
  }

  /** Takes a place or throws `overloaded`. The returned function gives it back; calling it again does nothing. */
  enter(): () => void {
    if (this.#waiting >= this.#capacity) {
      throw new SllmError("overloaded", `${this.#waiting} requests are waiting already.`, {
        retry_after_ms: retryAfter_ms,
      });
    }
    this.#waiting += 1;
    let inside = true;
    return () => {
      if (!inside) return;
      inside = false;
      this.#waiting -= 1;
    };
  }
}
