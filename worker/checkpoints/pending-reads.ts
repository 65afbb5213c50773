/** Reads that wait for their turn on a link: one per checkpoint, however many wait for it. */
import { SllmError } from "../../schema/error.ts";
import type { CheckpointDigest } from "../../schema/ids.ts";
import type { LinkQueue, LinkTurn } from "../links/link-queue.ts";

interface QueuedRead {
  /** Takes it out of the queue when nobody waits any more. */
  readonly giveUp: AbortController;
  readonly listeners: Set<(position: number) => void>;
  waiters: number;
  position: number;
  hasBegun: boolean;
}

/** What whoever waits wants to hear meanwhile. */
export interface WaitOptions {
  /** Ends the wait with `cancelled`, not the read that others wait for. */
  readonly signal?: AbortSignal | undefined;
  /** Place in the queue, 1 for the next; not called when the read begins at once. */
  readonly onPosition?: ((position: number) => void) | undefined;
}

export class PendingReads<Copy> {
  readonly #link: LinkQueue;
  readonly #reads = new Map<CheckpointDigest, { read: QueuedRead; copy: Promise<Copy> }>();

  constructor(link: LinkQueue) {
    this.#link = link;
  }

  has(digest: CheckpointDigest): boolean {
    return this.#reads.has(digest);
  }

  /**
   * Queues a read. `start` is called once, in its turn, and asks at its end how many wait for what it returns; what it
   * throws they all get. `wait` must follow in the same step.
   */
  queue(
    digest: CheckpointDigest,
    bytes: number,
    start: (turn: LinkTurn, waiters: () => number) => Promise<Copy>,
  ): void {
    const read: QueuedRead = {
      giveUp: new AbortController(),
      listeners: new Set(),
      waiters: 0,
      position: 0,
      hasBegun: false,
    };
    const tell = (position: number) => {
      read.position = position;
      for (const listener of read.listeners) listener(position);
    };
    const copy = this.#link
      .enter(bytes, read.giveUp.signal, tell)
      .then((turn) => {
        read.hasBegun = true;
        return start(turn, () => read.waiters);
      })
      .finally(() => this.#reads.delete(digest));
    this.#reads.set(digest, { read, copy });
  }

  /** Waits for a queued read to begin. */
  wait(digest: CheckpointDigest, { signal, onPosition }: WaitOptions): Promise<Copy> {
    const queued = this.#reads.get(digest);
    if (queued === undefined) throw new Error(`no read of ${digest} is queued`);
    const { read, copy } = queued;
    read.waiters++;
    if (onPosition) read.listeners.add(onPosition);
    if (onPosition && read.position > 0) onPosition(read.position);
    return new Promise((resolve, reject) => {
      const leave = () => {
        // Once it has begun, everybody has a share and gives it back.
        if (read.hasBegun) return;
        reject(new SllmError("cancelled", "The load was stopped while it waited for the disk."));
        if (onPosition) read.listeners.delete(onPosition);
        read.waiters--;
        if (read.waiters === 0) read.giveUp.abort();
      };
      const settle = () => signal?.removeEventListener("abort", leave);
      copy.finally(settle).then(resolve, reject);
      if (signal?.aborted) leave();
      else signal?.addEventListener("abort", leave, { once: true });
    });
  }
}
