/**
 * The queue of one link (a disk, a device's bus): loads go over it in the order in which they came, a bounded number
 * at once, and what is still to go is known, in bytes and in time. Bandwidth is learned from the loads themselves.
 */
import type { LinkReport } from "../../schema/cluster/membership.ts";
import { SllmError } from "../../schema/error.ts";
import type { Clock } from "../ports.ts";

/** Bytes per second that count until a load has shown what the link does: one NVMe disk. */
const nominal_bytes_per_s = 2_000_000_000;
/** Bytes after which an observation weighs as much as all before it. */
const fullWeightBytes = 256 * 1024 * 1024;
/** Observations below this say more about latency than about the link. */
const leastBytes = 1024 * 1024;
/** A long load is observed in parts of this length, so that a change of the link is noticed while it lasts. */
const windowMs = 1_000;

/** A load that goes over the link now. */
export interface LinkTurn {
  /** Bytes that have gone over so far. */
  moved(bytes_done: number): void;
  /** Lets the next one begin. Call it exactly once. */
  end(): void;
}

interface Waiting {
  readonly bytes: number;
  /** As last told. */
  position: number;
  readonly onPosition: (position: number) => void;
  readonly start: (turn: LinkTurn) => void;
}

interface Running {
  readonly bytes: number;
  bytes_done: number;
}

export interface LinkQueueOptions {
  /** Name for reports: `disk` or `device:<id>`. */
  readonly link: string;
  /** Loads at once. */
  readonly parallel: number;
  /** What a probe measured, for the time before the first load; null when there was none. */
  readonly probed_bytes_per_s?: () => number | null;
  readonly clock: Pick<Clock, "monotonicMs">;
}

export class LinkQueue {
  readonly #options: LinkQueueOptions;
  readonly #waiting: Waiting[] = [];
  readonly #running = new Set<Running>();
  #bandwidth_bytes_per_s: number | null = null;
  #windowStartMs = 0;
  #windowBytes = 0;

  constructor(options: LinkQueueOptions) {
    this.#options = options;
  }

  /**
   * Resolves when the link is free for these bytes. Until then `onPosition` hears the place in the queue, 1 for the
   * next, whenever it changes. An abort leaves the queue with `cancelled`.
   */
  enter(bytes: number, signal: AbortSignal, onPosition: (position: number) => void): Promise<LinkTurn> {
    return new Promise((resolve, reject) => {
      const leave = () => {
        this.#waiting.splice(this.#waiting.indexOf(waiting), 1);
        this.#tellPositions();
        reject(new SllmError("cancelled", `The load left the queue of ${this.#options.link}.`));
      };
      const start = (turn: LinkTurn) => {
        signal.removeEventListener("abort", leave);
        resolve(turn);
      };
      const waiting = { bytes, position: 0, onPosition, start };
      this.#waiting.push(waiting);
      if (signal.aborted) leave();
      else {
        signal.addEventListener("abort", leave, { once: true });
        this.#admit();
      }
    });
  }

  /** What is still to go over the link, running and waiting. */
  report(): LinkReport {
    const rest = [...this.#running].reduce((sum, r) => sum + Math.max(0, r.bytes - r.bytes_done), 0);
    const queued_bytes = this.#waiting.reduce((sum, w) => sum + w.bytes, rest);
    const bandwidth = this.#bandwidth_bytes_per_s ?? this.#options.probed_bytes_per_s?.() ?? null;
    return {
      link: this.#options.link,
      queued_bytes,
      queued_ms: Math.round((queued_bytes / (bandwidth ?? nominal_bytes_per_s)) * 1000),
      bandwidth_bytes_per_s: bandwidth,
    };
  }

  #admit(): void {
    while (this.#running.size < this.#options.parallel) {
      const next = this.#waiting.shift();
      if (next === undefined) break;
      next.start(this.#turnOf(next.bytes));
    }
    this.#tellPositions();
  }

  #tellPositions(): void {
    for (const [i, waiting] of this.#waiting.entries()) {
      if (waiting.position === i + 1) continue;
      waiting.position = i + 1;
      waiting.onPosition(i + 1);
    }
  }

  #turnOf(bytes: number): LinkTurn {
    const running: Running = { bytes, bytes_done: 0 };
    if (this.#running.size === 0) this.#openWindow();
    this.#running.add(running);
    return {
      moved: (bytes_done) => {
        this.#windowBytes += bytes_done - running.bytes_done;
        running.bytes_done = bytes_done;
        if (this.#options.clock.monotonicMs() - this.#windowStartMs >= windowMs) this.#closeWindow();
      },
      end: () => {
        if (!this.#running.delete(running)) throw new Error("a turn on a link was ended twice");
        if (this.#running.size === 0) this.#closeWindow();
        this.#admit();
      },
    };
  }

  #openWindow(): void {
    this.#windowStartMs = this.#options.clock.monotonicMs();
    this.#windowBytes = 0;
  }

  /** Learns from what went over the link since the window was opened; only busy time is inside windows. */
  #closeWindow(): void {
    const ms = this.#options.clock.monotonicMs() - this.#windowStartMs;
    const bytes = this.#windowBytes;
    this.#openWindow();
    if (bytes < leastBytes || ms <= 0) return;
    const observed = (bytes / ms) * 1000;
    const before = this.#bandwidth_bytes_per_s;
    const weight = before === null ? 1 : Math.min(1, bytes / fullWeightBytes) / 2;
    this.#bandwidth_bytes_per_s = (before ?? 0) * (1 - weight) + observed * weight;
  }
}
