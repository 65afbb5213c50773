/** Medians, quantiles and pairs: what every figure of the benchmarks rests on. */
import { describe, expect, test } from "bun:test";
import { median, pairedRatio, quantile, spread, summary } from "./statistics.ts";

test("the median of an odd number of values is the middle one, of an even number the mean of the two", () => {
  expect(median([9, 1, 5])).toBe(5);
  expect(median([10, 1, 2, 100])).toBe(6);
});

test("summaries of nothing are refused", () => {
  expect(() => median([])).toThrow("no values");
  expect(() => quantile([], 0.5)).toThrow("no values");
});

describe("a quantile", () => {
  test("lies between two values by their distance", () => {
    expect(quantile([30, 10, 20], 0.5)).toBe(20);
    expect(quantile([10, 20], 0.95)).toBeCloseTo(19.5);
  });

  test("is the extreme at both ends", () => {
    expect([quantile([3, 1, 2], 0), quantile([3, 1, 2], 1)]).toEqual([1, 3]);
  });
});

test("a spread has extremes, quartiles and the number of runs", () => {
  expect(spread([4, 1, 3, 2, 5])).toEqual({ min: 1, q1: 2, median: 3, q3: 4, max: 5, runs: 5 });
  expect(summary([4, 1, 3])).toEqual({ median: 3, min: 1, max: 4, runs: 3 });
});

test("the ratio of pairs holds when the machine's speed drifts between the pairs", () => {
  const peer = [100, 900, 400];
  const ours = [50, 100, 200];
  expect(pairedRatio(peer, ours)).toBe(2);
  expect(median(peer) / median(ours)).toBe(4);
});
