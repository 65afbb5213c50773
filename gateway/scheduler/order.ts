/** Orders that do not depend on how a view lists its parts. */
import type { DeviceNode } from "./view.ts";

/** Order of code units: the same on every machine and locale. */
export function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

export function compareDevices(a: DeviceNode, b: DeviceNode): number {
  return compareText(a.host.worker_id, b.host.worker_id) || compareText(a.device_id, b.device_id);
}

/** The best few of many, in their order. Offering costs little once it is full of better ones. */
export class Shortlist<T> {
  readonly #size: number;
  readonly #compare: (a: T, b: T) => number;
  readonly #items: T[] = [];

  constructor(size: number, compare: (a: T, b: T) => number) {
    this.#size = size;
    this.#compare = compare;
  }

  get items(): readonly T[] {
    return this.#items;
  }

  /** The worst that is in it, once it is full: what is worse need not be offered. */
  get bar(): T | null {
    return this.#items.length < this.#size ? null : (this.#items.at(-1) ?? null);
  }

  offer(item: T): void {
    const { bar } = this;
    if (bar !== null && this.#compare(item, bar) >= 0) return;
    let at = this.#items.length;
    for (; at > 0; at--) {
      const before = this.#items[at - 1];
      if (before === undefined || this.#compare(before, item) <= 0) break;
    }
    this.#items.splice(at, 0, item);
    if (this.#items.length > this.#size) this.#items.pop();
  }
}

/** A number from 0 to 2^32 - 1 that looks drawn by chance for each text, the same for the same seed (FNV-1a, mixed). */
export function drawFor(seed: number, text: string): number {
  let hash = (2_166_136_261 ^ seed) >>> 0;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 16_777_619) >>> 0;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b) >>> 0;
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35) >>> 0;
  return (hash ^ (hash >>> 16)) >>> 0;
}
