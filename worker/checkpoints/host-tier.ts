/**
 * The host tier: copies of weights in host memory, read once per checkpoint whoever asks (single flight), shared by
 * reference counts, and kept after use as far as the cache allows. Copies in use or loading are never evicted.
 *
 * A copy's memory is used again as soon as the native store is told to release it, and an engine that still mapped it
 * would compute on other bytes. So a lease ends only when the engine process it was taken for is gone.
 */
import type {
  NativeArenaStatus,
  NativeLoadParams,
  NativeLoadStatus,
} from "../../native/bun-ffi-helpers/native.ts";
import type { PlacementReport } from "../../schema/cluster/membership.ts";
import type { CheckpointDigest } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import { Changes } from "../changes.ts";
import type { Clock } from "../ports.ts";
import type { StoredCheckpoint } from "./disk-tier.ts";

/** What is used of the native store. */
export interface CopyStore {
  load(params: NativeLoadParams): bigint;
  status(load: bigint): NativeLoadStatus;
  release(load: bigint): void;
  arena(): NativeArenaStatus;
}

/** How often loads in progress are looked at: for reports only, engines follow the copy by themselves. */
const pollMs = 20;

interface HostCopy {
  readonly checkpoint: StoredCheckpoint;
  readonly load: bigint;
  status: NativeLoadStatus;
  references: number;
  /** Order of last use among the copies. */
  used: number;
}

/** A share in a host copy. Release it exactly once, when the engine process that was given the path is gone. */
export interface HostLease {
  /** Where engine processes of the same user open the copy. */
  readonly weights_path: string;
  /** True when the weights were in host memory already. */
  readonly was_present: boolean;
  /** State of the read as last seen. */
  status(): NativeLoadStatus;
  /** Resolves when the state may have changed. */
  changed(): Promise<void>;
  release(): void;
}

export interface HostTierOptions {
  readonly store: CopyStore;
  readonly clock: Clock;
  /** Bytes that copies without users may keep now. */
  readonly cacheBytes: () => number;
  /** Process that owns the descriptors of the store. */
  readonly process_id: number;
}

export class HostTier {
  readonly #options: HostTierOptions;
  readonly #copies = new Map<CheckpointDigest, HostCopy>();
  readonly #changes = new Changes();
  #uses = 0;
  #polling = false;

  constructor(options: HostTierOptions) {
    this.#options = options;
  }

  /** Shares the copy of a checkpoint and begins to read it if nobody has. Throws what the store refuses with. */
  acquire(checkpoint: StoredCheckpoint): HostLease {
    const kept = this.#copies.get(checkpoint.digest);
    const was_present = kept !== undefined && this.#look(kept).state === "ready";
    // A copy that the look has just found failed is not shared any more.
    const copy = this.#copies.get(checkpoint.digest) ?? this.#begin(checkpoint);
    copy.references++;
    copy.used = ++this.#uses;
    let released = false;
    return {
      weights_path: `/proc/${this.#options.process_id}/fd/${copy.status.fd}`,
      was_present,
      status: () => this.#look(copy),
      changed: () => this.#changes.wait(),
      release: () => {
        if (released) throw new Error("a host lease was released twice");
        released = true;
        copy.references--;
        copy.used = ++this.#uses;
        this.#afterRelease(copy);
      },
    };
  }

  /** Evicts copies without users, least recently used first, until those that are left fit the cache. */
  trim(): void {
    const bytes = this.#options.cacheBytes();
    const idle = this.#idle();
    let left = idle.reduce((sum, copy) => sum + bytesOf(copy), 0);
    for (const copy of idle) {
      if (left <= bytes) return;
      left -= bytesOf(copy);
      this.#forget(copy);
    }
  }

  /** Reports for the gateway. */
  placements(): PlacementReport[] {
    return [...this.#copies.values()].map((copy) => {
      const { state, bytes_done } = copy.status;
      return {
        checkpoint: copy.checkpoint.digest,
        tier: "host",
        state: state === "ready" ? "present" : "loading",
        bytes_present: bytes_done,
      };
    });
  }

  /** Copies without users, least recently used first. */
  #idle(): HostCopy[] {
    return [...this.#copies.values()].filter((copy) => copy.references === 0).sort((a, b) => a.used - b.used);
  }

  /**
   * Makes room in the arena for a load that begins in the same turn, so that no other can take it. Evicts as little as
   * suffices, and nothing when all idle copies together would not: the store then refuses with its numbers.
   */
  #makeRoom(bytes: number): void {
    const { arena_bytes, used_bytes } = this.#options.store.arena();
    let missing = arenaBytesOf(bytes) - (arena_bytes - used_bytes);
    const victims: HostCopy[] = [];
    for (const copy of this.#idle()) {
      if (missing <= 0) break;
      victims.push(copy);
      missing -= arenaBytesOf(bytesOf(copy));
    }
    if (missing > 0) return;
    for (const copy of victims) this.#forget(copy);
  }

  #begin(checkpoint: StoredCheckpoint): HostCopy {
    const { bytes, chunk_bytes, chunks } = checkpoint.manifest.weights;
    const { store } = this.#options;
    this.#makeRoom(bytes);
    const load = store.load({
      weights_path: checkpoint.weights_path,
      weights_bytes: bytes,
      chunk_bytes,
      chunk_digests: BigUint64Array.from(chunks, (chunk) => BigInt(`0x${chunk.xxh3}`)),
    });
    const copy = { checkpoint, load, status: store.status(load), references: 0, used: 0 };
    this.#copies.set(checkpoint.digest, copy);
    void this.#poll();
    return copy;
  }

  /** Failed copies are shared no further: whoever asks next reads anew. */
  #look(copy: HostCopy): NativeLoadStatus {
    if (copy.status.state !== "loading") return copy.status;
    copy.status = this.#options.store.status(copy.load);
    if (copy.status.state === "failed" && this.#copies.get(copy.checkpoint.digest) === copy) {
      this.#copies.delete(copy.checkpoint.digest);
    }
    return copy.status;
  }

  async #poll(): Promise<void> {
    if (this.#polling) return;
    this.#polling = true;
    for (;;) {
      const loading = [...this.#copies.values()].filter((copy) => this.#look(copy).state === "loading");
      this.#changes.notify();
      if (loading.length === 0) break;
      await this.#options.clock.sleep(pollMs);
    }
    this.#polling = false;
  }

  #afterRelease(copy: HostCopy): void {
    if (copy.references > 0) return;
    if (this.#look(copy).state === "ready") this.trim();
    else this.#forget(copy);
  }

  #forget(copy: HostCopy): void {
    if (this.#copies.get(copy.checkpoint.digest) === copy) this.#copies.delete(copy.checkpoint.digest);
    this.#options.store.release(copy.load);
    this.#changes.notify();
  }
}

/** What weights take in the arena: whole chunks. */
function arenaBytesOf(bytes: number): number {
  return Math.ceil(bytes / limits.chunk_bytes) * limits.chunk_bytes;
}

function bytesOf(copy: HostCopy): number {
  return copy.checkpoint.manifest.weights.bytes;
}
