/**
 * Weights that find no room in host memory pass through a part of it on their way to a device. Such a copy is never
 * whole: it serves the one engine that it was begun for, nobody shares it, and no report names it.
 */
import { limits } from "../../schema/limits.ts";
import { Changes } from "../changes.ts";
import type { LinkQueue, LinkTurn } from "../links/link-queue.ts";
import type { Clock } from "../ports.ts";
import { type CopyStore, loadParams } from "./copy-store.ts";
import type { StoredCheckpoint } from "./disk-tier.ts";
import type { AcquireOptions, HostLease, HostStatus } from "./host-lease.ts";
import { changedUnderUs } from "./host-refusals.ts";

/** How often streams are looked at: for reports only, engines follow by themselves. */
const pollMs = 20;
/** One is filled while the other is sent. */
export const leastStreamChunks = 2;

export interface StreamsOptions {
  readonly store: CopyStore;
  readonly clock: Clock;
  /** Streams take their turns among the other loads. */
  readonly link: LinkQueue;
  /** Changes whenever a file does; null when there is none. */
  readonly fileVersion: (path: string) => string | null;
  /** Process that owns the descriptors of the store. */
  readonly process_id: number;
}

/** Frees chunks of the arena, calls `begin` with their number before others can take them, returns what it returns. */
export type WithRoom = (begin: (chunks: number) => HostLease) => Promise<HostLease>;

export class Streams {
  readonly #options: StreamsOptions;
  /** Chunks of streams that were not released. */
  #chunks = 0;

  constructor(options: StreamsOptions) {
    this.#options = options;
  }

  /** What streams hold of the arena. */
  get arena_bytes(): number {
    return this.#chunks * limits.chunk_bytes;
  }

  /** Begins to stream when the link is free and there is room. Throws what `withRoom` and the store throw, `cancelled`. */
  async open(
    checkpoint: StoredCheckpoint,
    { signal, onPosition, recorder }: AcquireOptions,
    withRoom: WithRoom,
  ): Promise<HostLease> {
    const never = new AbortController().signal;
    const { bytes } = checkpoint.manifest.weights;
    recorder?.begin("link_wait", "lookup");
    const turn = await this.#options.link.enter(bytes, signal ?? never, onPosition ?? (() => {}));
    recorder?.end("link_wait");
    recorder?.begin("reserve", "link_wait");
    try {
      const lease = await withRoom((chunks) => this.#begin(checkpoint, chunks, turn));
      recorder?.end("reserve");
      recorder?.begin("read", "reserve");
      return lease;
    } catch (error) {
      turn.end();
      throw error;
    }
  }

  #begin(checkpoint: StoredCheckpoint, chunks: number, turn: LinkTurn): HostLease {
    const { store, fileVersion } = this.#options;
    const version = fileVersion(checkpoint.weights_path);
    const load = store.load({ ...loadParams(checkpoint), stream_chunks: chunks });
    this.#chunks += chunks;
    const released = () => {
      this.#chunks -= chunks;
    };
    return new Stream({ ...this.#options, checkpoint, version, load, turn, released });
  }
}

interface StreamOptions extends StreamsOptions {
  readonly checkpoint: StoredCheckpoint;
  /** The weights file as it was when the read began. */
  readonly version: string | null;
  readonly load: bigint;
  /** Ends with the read, or with the lease. */
  readonly turn: LinkTurn;
  readonly released: () => void;
}

class Stream implements HostLease {
  readonly weights_path: string;
  readonly was_present = false;
  readonly was_begun = true;
  readonly #options: StreamOptions;
  readonly #changes = new Changes();
  /** As last seen; null before the first look. */
  #status: HostStatus | null = null;
  #released = false;

  constructor(options: StreamOptions) {
    this.#options = options;
    this.weights_path = `/proc/${options.process_id}/fd/${options.store.status(options.load).fd}`;
    void this.#poll();
  }

  status(): HostStatus {
    const isOver = this.#released || (this.#status !== null && this.#status.state !== "loading");
    if (this.#status !== null && isOver) return this.#status;
    const { store, load, turn, checkpoint, version, fileVersion } = this.#options;
    const found = store.status(load);
    turn.moved(found.bytes_done);
    const changed = found.state === "failed" && fileVersion(checkpoint.weights_path) !== version;
    this.#status = changed ? { ...found, failure: changedUnderUs(checkpoint, found.failure) } : found;
    if (found.state !== "loading") turn.end();
    return this.#status;
  }

  changed(): Promise<void> {
    return this.#changes.wait();
  }

  keep(): never {
    throw new Error("a stream cannot be kept");
  }

  use(): boolean {
    return !this.#released;
  }

  release(): void {
    if (this.#released) throw new Error("a host lease was released twice");
    const { store, load, turn, released } = this.#options;
    if (this.status().state === "loading") turn.end();
    this.#released = true;
    released();
    store.release(load);
    this.#changes.notify();
  }

  async #poll(): Promise<void> {
    while (!this.#released && this.status().state === "loading") {
      this.#changes.notify();
      await this.#options.clock.sleep(pollMs);
    }
    this.#changes.notify();
  }
}
