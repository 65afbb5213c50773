/**
 * The host tier: copies of weights in host memory, read once per checkpoint whoever asks (single flight), shared by
 * reference counts, and kept after use as far as the cache allows. Copies in use or loading are never evicted.
 *
 * A copy's memory is used again as soon as the native store is told to release it, and an engine that still mapped it
 * would compute on other bytes. So a lease ends only when the engine process it was taken for is gone, or has said that
 * it maps the copy no longer: a parked engine keeps its mapping until the tier wants the memory. Longer than other files
 * because sharing, reading and evicting change one set of copies.
 */
import type { PlacementReport } from "../../schema/cluster/membership.ts";
import type { PreloadOutcome } from "../../schema/cluster/preloads.ts";
import type { CheckpointDigest } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import { Changes } from "../changes.ts";
import type { LinkQueue, LinkTurn } from "../links/link-queue.ts";
import type { Clock } from "../ports.ts";
import { type CopyStore, loadParams } from "./copy-store.ts";
import type { StoredCheckpoint } from "./disk-tier.ts";
import {
  type AcquireOptions,
  type HostLease,
  type HostStatus,
  Lease,
  type LeaseFacts,
  type LentCopy,
  type LetGo,
} from "./host-lease.ts";
import { arenaBytesOf, arenaTooSmall, changedUnderUs, foundNoRoom } from "./host-refusals.ts";
import { PendingReads } from "./pending-reads.ts";
import { leastStreamChunks, Streams } from "./streams.ts";

/** How often loads in progress are looked at: for reports only, engines follow the copy by themselves. */
const pollMs = 20;

/** Longest wait for the reads of a released load to end. */
const drainMs = 2_000;

interface ArenaRoom {
  readonly arena_bytes: number;
  readonly used_bytes: number;
}

interface HostCopy extends LentCopy {
  readonly checkpoint: StoredCheckpoint;
  readonly load: bigint;
  /** The weights file as it was when the read began. */
  readonly version: string | null;
  /** Its place on the disk's link until the read has ended. */
  turn: LinkTurn | null;
  status: HostStatus;
  references: number;
  /** Order of last use among the copies. */
  used: number;
}

export interface HostTierOptions {
  readonly store: CopyStore;
  readonly clock: Clock;
  /** Loads take turns on it. */
  readonly link: LinkQueue;
  /** Host memory that copies may use in all; what the store has if left out. */
  readonly arena_bytes?: number;
  /** Changes whenever a file does; null when there is none. */
  readonly fileVersion: (path: string) => string | null;
  /** Bytes that copies without users may keep now. */
  readonly cacheBytes: () => number;
  /** Process that owns the descriptors of the store. */
  readonly process_id: number;
  /** Told when a copy is there no more: who counts on it must hear of it. */
  readonly onEvicted?: () => void;
}

export class HostTier {
  readonly #options: HostTierOptions;
  readonly #copies = new Map<CheckpointDigest, HostCopy>();
  readonly #pending: PendingReads<HostCopy>;
  readonly #streams: Streams;
  readonly #changes = new Changes();
  /** Copies whose engines are asked to let them go. */
  readonly #leaving = new Map<HostCopy, Promise<void>>();
  /** The end of what #oneAtATime was given last. */
  #lastBegin: Promise<unknown> = Promise.resolve();
  #uses = 0;
  #polling = false;

  constructor(options: HostTierOptions) {
    this.#options = options;
    this.#pending = new PendingReads(options.link);
    this.#streams = new Streams(options);
  }

  /**
   * Shares the copy of a checkpoint; the first to ask for it reads it, when the disk is free for it and parked engines
   * have let other copies go. Weights that find no room stream by where the options allow it. Throws what the store
   * refuses with, `arena_too_small` when no eviction could make room, and `cancelled`.
   */
  async acquire(checkpoint: StoredCheckpoint, options: AcquireOptions = {}): Promise<HostLease> {
    const here = this.#share(checkpoint);
    if (here) return here;
    const was_begun = !this.#pending.has(checkpoint.digest);
    const fits = arenaBytesOf(checkpoint.manifest.weights.bytes) <= this.#roomBytes();
    if (was_begun && options.mayStream && !fits) return await this.#stream(checkpoint, options);
    if (was_begun) this.#queue(checkpoint, options);
    try {
      const begun = await this.#pending.wait(checkpoint.digest, options);
      return this.#lend(begun, { was_present: false, was_begun });
    } catch (error) {
      // What was free when the read was queued may be in use by its turn.
      if (options.mayStream && foundNoRoom(error)) return await this.#stream(checkpoint, options);
      throw error;
    }
  }

  /**
   * Begins to read a checkpoint into memory and disk that nobody needs; it is kept like a copy that was used. Its read
   * goes on after this has answered; `done` resolves when it is there, failed or was not begun.
   */
  preload(checkpoint: StoredCheckpoint): { readonly outcome: PreloadOutcome; readonly done: Promise<void> } {
    const { cacheBytes, link } = this.#options;
    const { digest, manifest } = checkpoint;
    const already = this.#copies.get(digest);
    const nothing = Promise.resolve();
    if (already !== undefined || this.#pending.has(digest)) {
      return { outcome: already?.status.state === "ready" ? "present" : "reading", done: nothing };
    }
    const { arena_bytes, used_bytes } = this.#arena();
    const cached = this.#idle().reduce((sum, copy) => sum + bytesOf(copy), 0);
    const fitsArena = used_bytes + arenaBytesOf(manifest.weights.bytes) <= arena_bytes;
    if (!fitsArena || cached + manifest.weights.bytes > cacheBytes())
      return { outcome: "no_room", done: nothing };
    if (link.report().queued_bytes > 0) return { outcome: "busy", done: nothing };
    return { outcome: "reading", done: this.#readAhead(checkpoint) };
  }

  /** Whoever wants the checkpoint meanwhile shares the read. Failures are told to who wants it next. */
  async #readAhead(checkpoint: StoredCheckpoint): Promise<void> {
    let lease: HostLease;
    try {
      lease = await this.acquire(checkpoint);
    } catch {
      return;
    }
    while (lease.status().state === "loading") await lease.changed();
    lease.release();
  }

  /** null when there is no copy; one that a look finds failed is not shared any more. */
  #share(checkpoint: StoredCheckpoint): HostLease | null {
    const copy = this.#copies.get(checkpoint.digest);
    if (copy === undefined) return null;
    const { state } = this.#look(copy);
    if (state === "failed") return null;
    copy.references++;
    return this.#lend(copy, { was_present: state === "ready", was_begun: false });
  }

  /** A lease on a copy in which the reference is counted already. */
  #lend(copy: HostCopy, facts: LeaseFacts): HostLease {
    copy.used = ++this.#uses;
    return new Lease(copy, facts, {
      path: `/proc/${this.#options.process_id}/fd/${copy.status.fd}`,
      look: () => this.#look(copy),
      changed: () => this.#changes.wait(),
      isLeaving: () => this.#leaving.has(copy),
      use: (change) => this.#use(copy, change),
      released: () => this.#afterRelease(copy),
    });
  }

  #use(copy: HostCopy, change: 1 | -1): void {
    copy.references += change;
    copy.used = ++this.#uses;
  }

  /** Evicts copies without users, least recently used first, until those that are left fit the cache. */
  trim(): void {
    const bytes = this.#options.cacheBytes();
    const idle = this.#idle();
    let left = idle.reduce((sum, copy) => sum + bytesOf(copy), 0);
    for (const copy of idle) {
      if (left <= bytes) return;
      left -= bytesOf(copy);
      void this.#evict(copy);
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
  async #makeRoom(bytes: number): Promise<void> {
    const { arena_bytes, used_bytes } = await this.#drained(bytes);
    const needed = arenaBytesOf(bytes);
    if (needed > arena_bytes) throw arenaTooSmall(needed, arena_bytes);
    let missing = needed - (arena_bytes - used_bytes);
    if (missing > 0 && this.#leaving.size > 0) {
      await Promise.all(this.#leaving.values());
      return await this.#makeRoom(bytes);
    }
    const victims: HostCopy[] = [];
    for (const copy of this.#idle()) {
      if (missing <= 0) break;
      victims.push(copy);
      missing -= arenaBytesOf(bytesOf(copy));
    }
    if (missing > 0) return;
    await Promise.all(victims.map((copy) => this.#evict(copy)));
  }

  /**
   * The arena once no released load holds memory that these bytes need: its chunks come back when the last of its reads
   * has ended, which takes moments.
   */
  async #drained(bytes: number): Promise<ArenaRoom> {
    for (let waitedMs = 0; ; waitedMs += pollMs) {
      const arena = this.#arena();
      const held = [...this.#copies.values(), ...this.#leaving.keys()];
      const copies = held.reduce((sum, copy) => sum + arenaBytesOf(bytesOf(copy)), 0);
      const fits = arenaBytesOf(bytes) <= arena.arena_bytes - arena.used_bytes;
      if (fits || arena.used_bytes <= copies + this.#streams.arena_bytes || waitedMs >= drainMs) return arena;
      await this.#options.clock.sleep(pollMs);
    }
  }

  #arena(): ArenaRoom {
    const { arena_bytes, used_bytes } = this.#options.store.arena();
    return { arena_bytes: Math.min(this.#options.arena_bytes ?? arena_bytes, arena_bytes), used_bytes };
  }

  /** What would be free if all copies without users were evicted. */
  #roomBytes(): number {
    const { arena_bytes, used_bytes } = this.#arena();
    return this.#idle().reduce((sum, copy) => sum + arenaBytesOf(bytesOf(copy)), arena_bytes - used_bytes);
  }

  /** As many chunks as a stream can use and the arena can spare. */
  #stream(checkpoint: StoredCheckpoint, options: AcquireOptions): Promise<HostLease> {
    return this.#streams.open(checkpoint, options, (begin) =>
      this.#oneAtATime(async () => {
        const most = Math.min(limits.stream_chunks, Math.floor(this.#roomBytes() / limits.chunk_bytes));
        const chunks = Math.max(most, leastStreamChunks);
        await this.#makeRoom(chunks * limits.chunk_bytes);
        return begin(chunks);
      }),
    );
  }

  /** Loads make room one after the other: what one has made free must not go to the next. */
  #oneAtATime<Begun>(begin: () => Promise<Begun>): Promise<Begun> {
    const begun = this.#lastBegin.then(begin);
    this.#lastBegin = begun.catch(() => {});
    return begun;
  }

  /** Resolves when the copy's memory is free. Nobody shares it from the first moment on. */
  #evict(copy: HostCopy): Promise<void> {
    if (this.#copies.get(copy.checkpoint.digest) === copy) this.#copies.delete(copy.checkpoint.digest);
    this.#options.onEvicted?.();
    if (copy.keepers.size === 0) {
      this.#forget(copy);
      return Promise.resolve();
    }
    const keepers = [...copy.keepers];
    const gone = Promise.all(keepers.map((letGo) => letGo())).then(() => {
      this.#leaving.delete(copy);
      this.#forget(copy);
    });
    this.#leaving.set(copy, gone);
    return gone;
  }

  #queue(checkpoint: StoredCheckpoint, { recorder, devices = 1 }: AcquireOptions): void {
    const { digest, manifest } = checkpoint;
    const version = this.#options.fileVersion(checkpoint.weights_path);
    recorder?.begin("link_wait", "lookup");
    this.#pending.queue(digest, manifest.weights.bytes, (turn, waiters) => {
      recorder?.end("link_wait");
      recorder?.begin("reserve", "link_wait");
      const begun = this.#oneAtATime(async () => {
        await this.#makeRoom(manifest.weights.bytes);
        const copy = this.#read(checkpoint, version, { turn, lanes: devices });
        copy.references = waiters();
        recorder?.end("reserve");
        recorder?.begin("read", "reserve");
        return copy;
      });
      begun.catch(() => turn.end());
      return begun;
    });
  }

  /** The turn ends with the read. */
  #read(
    checkpoint: StoredCheckpoint,
    version: string | null,
    { turn, lanes }: { turn: LinkTurn; lanes: number },
  ): HostCopy {
    const { store } = this.#options;
    const load = store.load({ ...loadParams(checkpoint), lanes });
    const status = store.status(load);
    const counted = { references: 0, keepers: new Set<LetGo>(), used: 0 };
    const copy: HostCopy = { checkpoint, load, version, turn, status, ...counted };
    this.#copies.set(checkpoint.digest, copy);
    void this.#poll();
    return copy;
  }

  /** Failed copies are shared no further: whoever asks next reads anew. */
  #look(copy: HostCopy): HostStatus {
    if (copy.status.state !== "loading" && copy.turn === null) return copy.status;
    const status = this.#options.store.status(copy.load);
    copy.turn?.moved(status.bytes_done);
    copy.status = status;
    if (status.state === "loading") return copy.status;
    this.#endTurn(copy);
    if (status.state === "failed") {
      const { weights_path } = copy.checkpoint;
      const changed = this.#options.fileVersion(weights_path) !== copy.version;
      if (changed) copy.status = { ...status, failure: changedUnderUs(copy.checkpoint, status.failure) };
      if (this.#copies.get(copy.checkpoint.digest) === copy) this.#copies.delete(copy.checkpoint.digest);
    }
    return copy.status;
  }

  #endTurn(copy: HostCopy): void {
    const { turn } = copy;
    copy.turn = null;
    turn?.end();
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
    // One that is leaving is forgotten when its last engine has let it go.
    if (copy.references > 0 || this.#leaving.has(copy)) return;
    if (this.#look(copy).state === "ready") this.trim();
    else this.#forget(copy);
  }

  #forget(copy: HostCopy): void {
    this.#endTurn(copy);
    if (this.#copies.get(copy.checkpoint.digest) === copy) this.#copies.delete(copy.checkpoint.digest);
    this.#options.store.release(copy.load);
    this.#changes.notify();
  }
}

function bytesOf(copy: HostCopy): number {
  return copy.checkpoint.manifest.weights.bytes;
}
