/** The events of one load for one reader: progress now and then, and the end as soon as it is there. */
import type { LoadEvent } from "../../schema/cluster/instances.ts";
import type { Clock, EventReader } from "../ports.ts";
import type { Instance } from "./instance.ts";

/** Shortest time between two progress events: people read them, nobody computes with them. */
const progressMs = 100;

/** Reads a load from where it stands; any number of readers may do so. The load does not depend on them. */
export class LoadReader implements EventReader<LoadEvent> {
  readonly #instance: Instance;
  readonly #clock: Clock;
  readonly #left = Promise.withResolvers<void>();
  #closed = false;
  #ended = false;
  #lastMs = Number.NEGATIVE_INFINITY;
  /** What the reader was told last. */
  #last = "";

  constructor(instance: Instance, clock: Clock) {
    this.#instance = instance;
    this.#clock = clock;
  }

  async next(): Promise<LoadEvent | null> {
    while (!this.#ended && !this.#closed) {
      const change = this.#instance.changes.wait();
      const event = this.#instance.loadEvent();
      if (event.type !== "progress") {
        this.#ended = true;
        return event;
      }
      const pauseMs = this.#lastMs + progressMs - this.#clock.monotonicMs();
      const news = `${event.bytes_done} ${event.waiting_for?.position ?? 0}`;
      if (pauseMs <= 0 && news !== this.#last) {
        this.#lastMs = this.#clock.monotonicMs();
        this.#last = news;
        return event;
      }
      await Promise.race([change, this.#left.promise]);
    }
    return null;
  }

  close(): void {
    this.#closed = true;
    this.#left.resolve();
  }
}
