/** A simulation in numbers: what people compare policies and fleets by. Pure. */
import type { Tier } from "../../schema/vocab.ts";
import type { Outcomes } from "./outcomes.ts";
import type { Simulation } from "./simulate.ts";

export interface Spread {
  readonly mean: number;
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  readonly max: number;
}

export interface Summary {
  readonly requests: number;
  readonly served: number;
  /** Gave up waiting. */
  readonly late: number;
  /** Found the queue full, or a cluster that cannot. */
  readonly refused: number;
  readonly share_served: number;
  /** Of all requests; one that was never served counts as having waited as long as requests may. */
  readonly startup_ms: Spread;
  /** Of those served. */
  readonly ttft_ms: Spread;
  /** Of those moved or preempted: without tokens after the first one. */
  readonly pause_ms: Spread;
  readonly device_hours: number;
  readonly duration_ms: number;
  readonly starts: number;
  readonly loads: Readonly<Record<Tier, number>>;
  readonly resumes: number;
  readonly migrations: number;
  readonly preemptions: number;
}

export function summarize(simulation: Simulation, hold_ms: number): Summary {
  const { outcomes, loads, device_hours, duration_ms, resumes, migrations, preemptions } = simulation;
  const counts = { open: 0, served: 0, late: 0, refused: 0 };
  for (let i = 0; i < outcomes.count; i++) counts[outcomes.state(i)] += 1;
  if (counts.open > 0) throw new Error(`${counts.open} requests never ended`);
  const moved = [...outcomes.pause_ms].filter(
    (_, i) => (outcomes.migrations[i] ?? 0) + (outcomes.preemptions[i] ?? 0) > 0,
  );
  return {
    ...{ requests: outcomes.count, served: counts.served, late: counts.late, refused: counts.refused },
    share_served: outcomes.count === 0 ? 1 : counts.served / outcomes.count,
    startup_ms: spreadOf(startupTimes(outcomes, hold_ms)),
    ttft_ms: spreadOf(outcomes.ttft_ms.filter((ms) => !Number.isNaN(ms))),
    pause_ms: spreadOf(Float64Array.from(moved)),
    ...{ device_hours, duration_ms, loads, resumes, migrations, preemptions },
    starts: Object.values(loads).reduce((sum, count) => sum + count, 0) - resumes,
  };
}

/** Start-up times of all, in the order they came. */
export function startupTimes(outcomes: Outcomes, hold_ms: number): Float64Array {
  return outcomes.startup_ms.map((ms, i) => (outcomes.state(i) === "served" ? ms : Math.max(ms, hold_ms)));
}

/** All zero for no values. */
export function spreadOf(values: Float64Array): Spread {
  const sorted = values.toSorted();
  let sum = 0;
  for (const value of sorted) sum += value;
  const at = (part: number) => quantileOf(sorted, part);
  return {
    mean: sorted.length === 0 ? 0 : sum / sorted.length,
    ...{ p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1) },
  };
}

/** Between neighbours by their distance; 0 of none. */
export function quantileOf(sorted: Float64Array, part: number): number {
  if (sorted.length === 0) return 0;
  const place = part * (sorted.length - 1);
  const below = sorted[Math.floor(place)] ?? 0;
  const above = sorted[Math.ceil(place)] ?? 0;
  return below + (above - below) * (place - Math.floor(place));
}
