/** Copies of checkpoints in a bounded place, a host's memory or disk: the least recently used go for new ones. */
import type { CheckpointDigest } from "../../schema/ids.ts";

export interface Copy {
  readonly bytes: number;
  /** When its last byte arrives. */
  readonly complete_at_ms: number;
  /** Who reads from it or computes on it: it stays. */
  users: number;
}

export class Shelf {
  readonly #capacity_bytes: number;
  /** The least recently used first. */
  readonly #copies = new Map<CheckpointDigest, Copy>();
  #used_bytes = 0;

  constructor(capacity_bytes: number) {
    this.#capacity_bytes = capacity_bytes;
  }

  get used_bytes(): number {
    return this.#used_bytes;
  }

  get copies(): ReadonlyMap<CheckpointDigest, Copy> {
    return this.#copies;
  }

  has(checkpoint: CheckpointDigest): boolean {
    return this.#copies.has(checkpoint);
  }

  /** The copy, used now. */
  use(checkpoint: CheckpointDigest): Copy | null {
    const copy = this.#copies.get(checkpoint);
    if (copy === undefined) return null;
    this.#copies.delete(checkpoint);
    this.#copies.set(checkpoint, copy);
    return copy;
  }

  /** Copies without users go, the least recently used first, until those that are left take at most so many bytes. */
  trim(most_bytes: number): void {
    const idle = [...this.#copies].filter(([, { users }]) => users === 0);
    let left_bytes = idle.reduce((sum, [, { bytes }]) => sum + bytes, 0);
    for (const [checkpoint, { bytes }] of idle) {
      if (left_bytes <= most_bytes) return;
      this.#copies.delete(checkpoint);
      this.#used_bytes -= bytes;
      left_bytes -= bytes;
    }
  }

  /** Room is made by letting copies without users go; null when that is not enough, and then nothing goes. */
  put(checkpoint: CheckpointDigest, bytes: number, complete_at_ms: number): Copy | null {
    const known = this.use(checkpoint);
    if (known !== null) return known;
    const going: CheckpointDigest[] = [];
    let used_bytes = this.#used_bytes;
    for (const [other, copy] of this.#copies) {
      if (used_bytes + bytes <= this.#capacity_bytes) break;
      if (copy.users > 0) continue;
      going.push(other);
      used_bytes -= copy.bytes;
    }
    if (used_bytes + bytes > this.#capacity_bytes) return null;
    for (const other of going) this.#copies.delete(other);
    const copy = { bytes, complete_at_ms, users: 0 };
    this.#copies.set(checkpoint, copy);
    this.#used_bytes = used_bytes + bytes;
    return copy;
  }
}
