/** Which models will probably be wanted: those that came to be ready often and lately. Pure but for what it remembers. */
import { limits } from "../../schema/limits.ts";
import type { Skeleton } from "./engine-process.ts";

/** A start this long ago counts half. */
const halfLifeMs = 60 * 60 * 1000;

interface Known {
  readonly skeleton: Skeleton;
  /** Starts and resumes, each worth less the longer it is ago; as of `at_ms`. */
  readonly score: number;
  readonly at_ms: number;
}

/** The same text means the same skeleton. */
export function skeletonKey(skeleton: Skeleton): string {
  return JSON.stringify(skeleton);
}

export class LikelyModels {
  readonly #known = new Map<string, Known>();

  /** A model has come to be ready. `now_ms` never goes back. */
  used(skeleton: Skeleton, now_ms: number): void {
    const key = skeletonKey(skeleton);
    const before = this.#known.get(key);
    const score = 1 + (before ? scoreAt(before, now_ms) : 0);
    this.#known.set(key, { skeleton, score, at_ms: now_ms });
    if (this.#known.size > limits.instances) this.#forgetLeast(now_ms);
  }

  /** All but these, the likeliest first. */
  without(running: readonly Skeleton[]): Skeleton[] {
    const excluded = new Set(running.map(skeletonKey));
    const others = [...this.#known].filter(([key]) => !excluded.has(key)).map(([, known]) => known);
    const now_ms = Math.max(0, ...others.map((known) => known.at_ms));
    return others
      .sort((a, b) => scoreAt(b, now_ms) - scoreAt(a, now_ms) || b.at_ms - a.at_ms)
      .map((known) => known.skeleton);
  }

  #forgetLeast(now_ms: number): void {
    const least = [...this.#known].sort(([, a], [, b]) => scoreAt(a, now_ms) - scoreAt(b, now_ms))[0];
    if (least) this.#known.delete(least[0]);
  }
}

function scoreAt(known: Known, now_ms: number): number {
  return known.score * 2 ** ((known.at_ms - now_ms) / halfLifeMs);
}
