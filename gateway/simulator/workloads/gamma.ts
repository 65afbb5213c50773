/**
 * Synthetic arrivals: intervals of a Gamma distribution with a mean rate and a coefficient of variation (1: Poisson; 8:
 * the bursts of serverless functions), shared out over models by Zipf's law.
 */
import { SeededRandom } from "../random.ts";
import { type RequestTrace, type TraceRow, toTrace } from "../trace.ts";
import type { Lengths } from "./lengths.ts";

export interface GammaWorkload {
  readonly requests_per_s: number;
  readonly cv: number;
  /** Popularity of the model of rank i is in proportion to (i + 1) to the power of minus this; 0: all alike. */
  readonly zipf: number;
  readonly duration_ms: number;
  /**
   * `per-model`: every model has bursts of its own. `aggregate`: one stream has them, and each of its requests draws a
   * model, so that a rare model sees few bursts.
   */
  readonly stream: "per-model" | "aggregate";
  readonly lengths: Lengths;
}

/** Requests for so many models. Realised rates differ from the mean ones: with CV 8 by a quarter over 1,000 requests. */
export function gammaTrace(workload: GammaWorkload, models: number, seed: number): RequestTrace {
  const random = new SeededRandom(seed).fork("workload");
  const shares = zipfShares(models, workload.zipf);
  const rows =
    workload.stream === "per-model"
      ? perModel(workload, shares, random)
      : aggregate(workload, shares, random);
  return toTrace(rows);
}

function perModel(workload: GammaWorkload, shares: readonly number[], random: SeededRandom): TraceRow[] {
  return shares.flatMap((share, model) => {
    const own = random.fork(`model ${model}`);
    const times = arrivals(workload, share * workload.requests_per_s, own);
    return times.map((arrival_ms) => ({ arrival_ms, model, ...workload.lengths.draw(own) }));
  });
}

function aggregate(workload: GammaWorkload, shares: readonly number[], random: SeededRandom): TraceRow[] {
  const draw = drawer(shares, random.fork("popularity"));
  const lengths = random.fork("lengths");
  const times = arrivals(workload, workload.requests_per_s, random.fork("times"));
  return times.map((arrival_ms) => ({ arrival_ms, model: draw(), ...workload.lengths.draw(lengths) }));
}

/** Begins somewhere in an interval, so that not every stream has its first request at once. */
function arrivals(
  { cv, duration_ms }: GammaWorkload,
  requests_per_s: number,
  random: SeededRandom,
): number[] {
  const shape = 1 / cv ** 2;
  const scale_ms = (cv ** 2 / requests_per_s) * 1_000;
  const times: number[] = [];
  let at_ms = random.next() * random.gamma(shape) * scale_ms;
  while (at_ms < duration_ms) {
    times.push(at_ms);
    at_ms += random.gamma(shape) * scale_ms;
  }
  return times;
}

export function zipfShares(models: number, exponent: number): readonly number[] {
  const weights = Array.from({ length: models }, (_, i) => (i + 1) ** -exponent);
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => weight / sum);
}

/** Draws places by their shares. */
export function drawer(shares: readonly number[], random: SeededRandom): () => number {
  let sum = 0;
  const marks = shares.map((share) => {
    sum += share;
    return sum;
  });
  return () => {
    const drawn = random.next() * sum;
    let [low, high] = [0, marks.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((marks[middle] ?? 0) <= drawn) low = middle + 1;
      else high = middle;
    }
    return low;
  };
}
