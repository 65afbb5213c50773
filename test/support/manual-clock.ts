/** A clock that moves only when the test says so. Fits the clock ports of gateway and worker. */

interface Sleeper {
  readonly at_ms: number;
  readonly wake: () => void;
}

export class ManualClock {
  #nowMs = 0;
  readonly #sleepers = new Set<Sleeper>();

  monotonicMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return this.#nowMs;
  }

  sleep(delay_ms: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const wake = () => {
        this.#sleepers.delete(sleeper);
        signal?.removeEventListener("abort", wake);
        resolve();
      };
      const sleeper = { at_ms: this.#nowMs + delay_ms, wake };
      this.#sleepers.add(sleeper);
      signal?.addEventListener("abort", wake, { once: true });
    });
  }

  after(delay_ms: number, call: () => void): () => void {
    const forget = () => void this.#sleepers.delete(sleeper);
    const wake = () => {
      forget();
      call();
    };
    const sleeper = { at_ms: this.#nowMs + delay_ms, wake };
    this.#sleepers.add(sleeper);
    return forget;
  }

  /** How many wait for the time to pass. */
  get sleeping(): number {
    return this.#sleepers.size;
  }

  /** Moves the time on, waking sleepers in their order and letting each one's work run before the next. */
  async advance(by_ms: number): Promise<void> {
    const end = this.#nowMs + by_ms;
    await settle();
    for (;;) {
      const due = [...this.#sleepers].sort((a, b) => a.at_ms - b.at_ms)[0];
      if (!due || due.at_ms > end) break;
      this.#nowMs = due.at_ms;
      due.wake();
      await settle();
    }
    this.#nowMs = end;
  }
}

/** The clock of one of several machines: the same time passes, its wall clock is set on its own. */
export class MachineClock {
  readonly #time: ManualClock;
  #offsetMs: number;

  constructor(time: ManualClock, offset_ms = 0) {
    this.#time = time;
    this.#offsetMs = offset_ms;
  }

  monotonicMs(): number {
    return this.#time.monotonicMs();
  }

  wallMs(): number {
    return this.#time.wallMs() + this.#offsetMs;
  }

  sleep(delay_ms: number, signal?: AbortSignal): Promise<void> {
    return this.#time.sleep(delay_ms, signal);
  }

  after(delay_ms: number, call: () => void): () => void {
    return this.#time.after(delay_ms, call);
  }

  /** Sets the wall clock on, or back by a negative time. */
  jump(by_ms: number): void {
    this.#offsetMs += by_ms;
  }
}

/** Resolves when what is ready to run has run. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
