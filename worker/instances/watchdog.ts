/**
 * Notices an engine that has stopped: its process says nothing, or it computes without getting on. A long prompt is no
 * reason: an engine on the processors gets on at every operation, one on a device at every batch.
 */
import type { EngineBeat } from "../../schema/cluster/activity.ts";
import type { Clock } from "../ports.ts";

/** Looks in the time after which an engine counts as stopped. */
const looks = 10;

export interface WatchdogOptions {
  readonly clock: Pick<Clock, "sleep">;
  /** Time without a sign of life. */
  readonly stall_ms: number;
  /** Called at most once, with what it saw. */
  readonly onStall: (message: string) => void;
}

export class Watchdog {
  readonly #options: WatchdogOptions;
  readonly #ended = new AbortController();
  #last: EngineBeat | null = null;
  /** Looks since the last sign of life. */
  #quiet = 0;
  #hears = false;

  constructor(options: WatchdogOptions) {
    this.#options = options;
  }

  /** Takes a beat in; null: the process lives, and its engine computes nothing. */
  heard(beat: EngineBeat | null): void {
    const last = this.#last;
    this.#last = beat;
    this.#hears = true;
    const hangs = beat?.computing && last?.computing && beat.progress === last.progress;
    if (!hangs) this.#quiet = 0;
  }

  /**
   * Watches until `end` or until it has stopped. Looks are counted, not time: a worker that was stopped itself has not
   * looked.
   */
  async watch(): Promise<void> {
    const { clock, stall_ms, onStall } = this.#options;
    while (this.#quiet < looks) {
      await clock.sleep(stall_ms / looks, this.#ended.signal);
      if (this.#ended.signal.aborted) return;
      this.#quiet++;
      if (this.#quiet === looks / 2) this.#hears = false;
    }
    const seconds = stall_ms / 1000;
    onStall(
      this.#hears
        ? `The engine has computed for ${seconds} s without getting on; its process was ended.`
        : `The engine process has not answered for ${seconds} s; it was ended.`,
    );
  }

  /** The engine process has ended. */
  end(): void {
    this.#ended.abort();
  }
}
