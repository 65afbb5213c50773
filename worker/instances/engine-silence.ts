/**
 * Notices an engine process that has stopped answering while it has requests, long before it is given up: its requests
 * can go on elsewhere, whatever becomes of it.
 */
import { limits } from "../../schema/limits.ts";
import type { Clock } from "../ports.ts";

/** Looks in the time after which it counts as silent. A worker that was stopped itself has not looked. */
const looks = 5;

export interface EngineSilenceOptions {
  readonly clock: Pick<Clock, "sleep">;
  readonly isBusy: () => boolean;
  /** Called once for each silence. */
  readonly onSilent: () => void;
}

export class EngineSilence {
  readonly #options: EngineSilenceOptions;
  readonly #ended = new AbortController();
  /** Only what beats can fall silent. */
  #beats = false;
  #quiet = 0;

  constructor(options: EngineSilenceOptions) {
    this.#options = options;
  }

  /** Anything the engine says. */
  heard(isBeat: boolean): void {
    this.#beats ||= isBeat;
    this.#quiet = 0;
  }

  /** Watches until `end`. */
  async watch(): Promise<void> {
    const { clock, isBusy, onSilent } = this.#options;
    for (;;) {
      await clock.sleep(limits.engine_silence_ms / looks, this.#ended.signal);
      if (this.#ended.signal.aborted) return;
      this.#quiet = this.#beats && isBusy() ? this.#quiet + 1 : 0;
      if (this.#quiet === looks) onSilent();
    }
  }

  /** The engine process has ended. */
  end(): void {
    this.#ended.abort();
  }
}
