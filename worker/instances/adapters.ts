/**
 * The LoRA adapters of one instance: brought to its engine by the first request that names them, shared by all that do,
 * and kept until others need their place or their memory; then the one that was used longest ago goes.
 */
import type { EngineCommand, EngineMessage } from "../../schema/cluster/engine.ts";
import { SllmError } from "../../schema/error.ts";
import type { CheckpointDigest } from "../../schema/ids.ts";
import { adapterMemoryBytes } from "../../schema/memory.ts";
import { Changes } from "../changes.ts";

/** Header and weights of an adapter where an engine reads them. */
export interface FetchedAdapter {
  readonly header_path: string;
  readonly weights_path: string;
  readonly weights_bytes: number;
  /** Lets both go; called once, when the engine needs them no more or never will. */
  release(): void;
}

export interface AdaptersOptions {
  /** Adapters that the engine holds at once. */
  readonly most: number;
  /** Whether the engine computes with the files themselves, as on a CPU, or with a copy of its own. */
  readonly in_place: boolean;
  /** Errors: those of the disk and the host tier, `cancelled`. */
  readonly fetch: (checkpoint: CheckpointDigest, signal: AbortSignal) => Promise<FetchedAdapter>;
  /** Books memory for all adapters together. Errors: `insufficient_memory`, `model_too_large`; nothing has changed then. */
  readonly book: (bytes: number) => void;
  readonly send: (command: Extract<EngineCommand, { op: "add_adapter" | "remove_adapter" }>) => void;
}

export type AdapterAnswer = Extract<EngineMessage, { type: "adapter_added" | "adapter_refused" }>;

/** An adapter that a request holds. Release it once, when the engine has ended the request. */
export interface AdapterUse {
  /** As the engine knows it. */
  readonly number: number;
  release(): void;
}

interface Resident {
  readonly checkpoint: CheckpointDigest;
  /** Of the engine's copy; 0 until it is booked. */
  bytes: number;
  users: number;
  /** Order of last use. */
  used: number;
  /** As the engine knows it; null until the engine has it. */
  number: number | null;
  /** Lets its files go, where the engine computes with them. */
  release: () => void;
  /** Resolves to the number. */
  readonly loaded: Promise<number>;
}

export class Adapters {
  readonly #options: AdaptersOptions;
  readonly #residents = new Map<CheckpointDigest, Resident>();
  /** Answers of the engine that are awaited, by number. */
  readonly #asked = new Map<number, ReturnType<typeof Promise.withResolvers<void>>>();
  readonly #changes = new Changes();
  /** Aborted when the engine lets all adapters go. */
  #life = new AbortController();
  #numbers = 0;
  #uses = 0;

  constructor(options: AdaptersOptions) {
    this.#options = options;
  }

  /** Memory that is booked for adapters. */
  get bytes(): number {
    let bytes = 0;
    for (const resident of this.#residents.values()) bytes += resident.bytes;
    return bytes;
  }

  /** True while one is on its way: the engine cannot be parked then. */
  get isLoading(): boolean {
    return [...this.#residents.values()].some((resident) => resident.number === null);
  }

  /**
   * Takes an adapter into use as soon as the engine has it; while all places are taken by others in use, it waits. Errors:
   * those of `fetch` and `book`, the engine's refusal, and `cancelled` when the signal aborts while it waits.
   */
  async use(checkpoint: CheckpointDigest, signal: AbortSignal): Promise<AdapterUse> {
    const resident = await this.#find(checkpoint, signal);
    resident.users++;
    resident.used = ++this.#uses;
    const release = () => {
      resident.users--;
      this.#changes.notify();
    };
    try {
      return { number: await resident.loaded, release };
    } catch (error) {
      release();
      throw error;
    }
  }

  /** The engine's answer. */
  onAnswer(message: AdapterAnswer): void {
    const asked = this.#asked.get(message.adapter);
    this.#asked.delete(message.adapter);
    if (message.type === "adapter_added") asked?.resolve();
    else asked?.reject(new SllmError(message.error.code, message.error.message));
  }

  /** The engine has let all adapters go, or has ended; what is booked for them is the caller's to change. */
  clear(): void {
    this.#life.abort();
    this.#life = new AbortController();
    for (const resident of this.#residents.values()) resident.release();
    this.#residents.clear();
    for (const asked of this.#asked.values()) asked.reject(ended());
    this.#asked.clear();
    this.#changes.notify();
  }

  async #find(checkpoint: CheckpointDigest, signal: AbortSignal): Promise<Resident> {
    const left = aborted(signal);
    for (;;) {
      if (signal.aborted) throw new SllmError("cancelled", "The request ended before its adapter was there.");
      const known = this.#residents.get(checkpoint);
      if (known) return known;
      if (this.#residents.size < this.#options.most || this.#evictIdle()) return this.#begin(checkpoint);
      await Promise.race([this.#changes.wait(), left]);
    }
  }

  #begin(checkpoint: CheckpointDigest): Resident {
    const answer = Promise.withResolvers<number>();
    const fields = { bytes: 0, users: 0, used: ++this.#uses, number: null, release: () => {} };
    const resident: Resident = { checkpoint, ...fields, loaded: answer.promise };
    this.#residents.set(checkpoint, resident);
    this.#load(resident, this.#life.signal).then(answer.resolve, (error: unknown) => {
      this.#drop(resident);
      answer.reject(error);
    });
    return resident;
  }

  async #load(resident: Resident, signal: AbortSignal): Promise<number> {
    const files = await this.#options.fetch(resident.checkpoint, signal);
    let isKept = false;
    try {
      if (signal.aborted) throw ended();
      this.#bookFor(resident, adapterMemoryBytes(files));
      const number = ++this.#numbers;
      const answer = Promise.withResolvers<void>();
      this.#asked.set(number, answer);
      const { release: _, ...paths } = files;
      this.#options.send({ op: "add_adapter", adapter: number, ...paths });
      await answer.promise;
      if (signal.aborted) throw ended();
      resident.number = number;
      isKept = this.#options.in_place;
      if (isKept) resident.release = () => files.release();
      return number;
    } finally {
      if (!isKept) files.release();
    }
  }

  /** What nobody uses goes for it where the memory does not suffice. */
  #bookFor(resident: Resident, bytes: number): void {
    for (;;) {
      try {
        this.#options.book(this.bytes + bytes);
        resident.bytes = bytes;
        return;
      } catch (error) {
        if (!(error instanceof SllmError) || !this.#evictIdle()) throw error;
      }
    }
  }

  /** False when all are in use or on their way. */
  #evictIdle(): boolean {
    let oldest: Resident | null = null;
    for (const one of this.#residents.values()) {
      if (one.users > 0 || one.number === null) continue;
      if (oldest === null || one.used < oldest.used) oldest = one;
    }
    if (oldest?.number == null) return false;
    // No request computes with it any more, so that its files need not wait for the engine's answer.
    this.#options.send({ op: "remove_adapter", adapter: oldest.number });
    this.#drop(oldest);
    return true;
  }

  /** Forgets one, unless it was forgotten with all others. */
  #drop(resident: Resident): void {
    if (this.#residents.get(resident.checkpoint) !== resident) return;
    this.#residents.delete(resident.checkpoint);
    resident.release();
    if (resident.bytes > 0) this.#options.book(this.bytes);
    this.#changes.notify();
  }
}

function ended(): SllmError {
  return new SllmError("engine_failed", "The engine let its adapters go.");
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
