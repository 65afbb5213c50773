/** Time that goes on only when everything that could happen now has happened: a heap of events, earliest first. */
import type { Clock } from "../ports.ts";

interface Entry {
  readonly at_ms: number;
  readonly order: number;
  /** null: cancelled. */
  run: (() => void) | null;
}

/** Resolves when all promises that can settle have settled. The runtime's; only composition roots name one. */
export type Settle = () => Promise<void>;

export class VirtualClock implements Clock {
  readonly #heap: Entry[] = [];
  #now_ms = 0;
  #order = 0;
  #isStopped = false;

  wallMs(): number {
    return this.#now_ms;
  }

  monotonicMs(): number {
    return this.#now_ms;
  }

  sleep(delay_ms: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      if (delay_ms === Number.POSITIVE_INFINITY) {
        signal?.addEventListener("abort", () => resolve(), { once: true });
        return;
      }
      const cancel = this.at(this.#now_ms + delay_ms, () => {
        signal?.removeEventListener("abort", leave);
        resolve();
      });
      const leave = () => {
        cancel();
        resolve();
      };
      signal?.addEventListener("abort", leave, { once: true });
    });
  }

  after(delay_ms: number, call: () => void): () => void {
    return delay_ms === Number.POSITIVE_INFINITY ? never : this.at(this.#now_ms + delay_ms, call);
  }

  /** Runs something at a time, now at the earliest; of the same time in the order of the calls. Returns its cancel. */
  at(at_ms: number, run: () => void): () => void {
    this.#order += 1;
    const entry: Entry = { at_ms: Math.max(at_ms, this.#now_ms), order: this.#order, run };
    this.#push(entry);
    return () => {
      entry.run = null;
    };
  }

  /** Runs until nothing is left to happen, or `stop`. */
  async run(settle: Settle): Promise<void> {
    this.#isStopped = false;
    await settle();
    while (!this.#isStopped) {
      const at_ms = this.#next_ms();
      if (at_ms === null) return;
      this.#now_ms = at_ms;
      while (this.#next_ms() === at_ms) this.#pop()?.run?.();
      await settle();
    }
  }

  /** What has not happened by now will not. */
  stop(): void {
    this.#isStopped = true;
  }

  /** Time of the next event that was not cancelled. */
  #next_ms(): number | null {
    for (;;) {
      const [first] = this.#heap;
      if (first === undefined) return null;
      if (first.run !== null) return first.at_ms;
      this.#pop();
    }
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    let place = heap.length;
    heap.push(entry);
    while (place > 0) {
      const above = (place - 1) >> 1;
      const parent = heap[above];
      if (parent === undefined || !isBefore(entry, parent)) break;
      heap[place] = parent;
      place = above;
    }
    heap[place] = entry;
  }

  #pop(): Entry | undefined {
    const heap = this.#heap;
    const [first] = heap;
    const last = heap.pop();
    if (first === undefined || last === undefined || heap.length === 0) return first;
    let place = 0;
    for (;;) {
      const left = 2 * place + 1;
      const a = heap[left];
      const b = heap[left + 1];
      if (a === undefined) break;
      const child = b !== undefined && isBefore(b, a) ? b : a;
      if (!isBefore(child, last)) break;
      heap[place] = child;
      place = child === a ? left : left + 1;
    }
    heap[place] = last;
    return first;
  }
}

function never(): void {}

function isBefore(a: Entry, b: Entry): boolean {
  return a.at_ms < b.at_ms || (a.at_ms === b.at_ms && a.order < b.order);
}
