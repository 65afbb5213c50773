/** Statistics that one wild value cannot spoil: medians, quantiles, and a line through the medians of slopes. Pure. */

/** Value below which the given part of the values lies; null of none. */
export function quantile(values: readonly number[], part: number): number | null {
  if (values.length === 0) return null;
  const sorted = values.toSorted((a, b) => a - b);
  const place = part * (sorted.length - 1);
  const below = sorted[Math.floor(place)] ?? 0;
  const above = sorted[Math.ceil(place)] ?? 0;
  return below + (above - below) * (place - Math.floor(place));
}

export function median(values: readonly number[]): number | null {
  return quantile(values, 0.5);
}

export interface Line {
  readonly slope: number;
  readonly base: number;
}

/** Theil and Sen's line, never falling and never below nothing; null for points of fewer than two different x. */
export function robustLine(points: readonly (readonly [x: number, y: number])[]): Line | null {
  const slopes: number[] = [];
  for (const [i, [x1, y1]] of points.entries()) {
    for (const [x2, y2] of points.slice(i + 1)) if (x1 !== x2) slopes.push((y2 - y1) / (x2 - x1));
  }
  const slope = median(slopes);
  if (slope === null) return null;
  const rising = Math.max(0, slope);
  const base = median(points.map(([x, y]) => y - rising * x)) ?? 0;
  return { slope: rising, base: Math.max(0, base) };
}
