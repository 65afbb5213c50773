/**
 * The cheapest fleet that serves some traffic as fast as wanted: fleets of the given kinds of hosts by their price, each
 * simulated, until one does. A fleet that is no larger in any kind than one that failed is not tried.
 */
import { SllmError } from "../../schema/error.ts";
import type { SimulatedCluster, SimulatedPolicy } from "../../schema/simulation.ts";
import { simulate } from "./simulate.ts";
import { quantileOf } from "./summary.ts";
import type { RequestTrace } from "./trace.ts";
import type { Settle } from "./virtual-clock.ts";

export interface PlanGoal {
  /** Of all requests, the 99th percentile of the time to the first token; one never served counts as having none. */
  readonly ttft_p99_ms: number;
}

export interface TriedFleet {
  readonly policy: SimulatedPolicy;
  /** Hosts of each kind, in the cluster's order. */
  readonly counts: readonly number[];
  readonly price_per_hour: number;
  /** null: a model fits nowhere. */
  readonly ttft_p99_ms: number | null;
  readonly meets_goal: boolean;
}

export interface Plan {
  /** null: not even all hosts do. */
  readonly chosen: TriedFleet | null;
  readonly tried: readonly TriedFleet[];
}

export interface PlanOptions {
  readonly seed: number;
  readonly settle: Settle;
  readonly policies: readonly SimulatedPolicy[];
}

/** Of each kind of host at most its `count`. Tries the largest fleet first: where that fails nothing smaller is tried. */
export async function planFleet(
  cluster: SimulatedCluster,
  trace: RequestTrace,
  goal: PlanGoal,
  options: PlanOptions,
): Promise<Plan> {
  const tried: TriedFleet[] = [];
  const attempt = async (counts: readonly number[], policy: SimulatedPolicy): Promise<TriedFleet> => {
    const ttft_p99_ms = await ttftOf(cluster, counts, policy, trace, options);
    const meets_goal = ttft_p99_ms !== null && ttft_p99_ms <= goal.ttft_p99_ms;
    const fleet = { policy, counts, price_per_hour: priceOf(cluster, counts), ttft_p99_ms, meets_goal };
    tried.push(fleet);
    return fleet;
  };
  const largest = cluster.hosts.map(({ count }) => count);
  const able: SimulatedPolicy[] = [];
  let best: TriedFleet | null = null;
  for (const policy of options.policies) {
    const fleet = await attempt(largest, policy);
    if (!fleet.meets_goal) continue;
    able.push(policy);
    best ??= fleet;
  }
  if (best === null) return { chosen: null, tried };
  const cheaper = fleetsUpTo(largest).toSorted(
    (a, b) => priceOf(cluster, a) - priceOf(cluster, b) || sum(a) - sum(b),
  );
  return { chosen: await search(cheaper, able, attempt, tried, best), tried };
}

/** The first of the fleets, by price, that meets the goal; each step halves what is left where kinds do not mix. */
async function search(
  fleets: readonly (readonly number[])[],
  policies: readonly SimulatedPolicy[],
  attempt: (counts: readonly number[], policy: SimulatedPolicy) => Promise<TriedFleet>,
  tried: readonly TriedFleet[],
  largest: TriedFleet,
): Promise<TriedFleet> {
  let best = largest;
  const isKnown = (counts: readonly number[], policy: SimulatedPolicy) =>
    tried.some((fleet) => {
      if (fleet.policy !== policy) return false;
      return fleet.meets_goal ? isWithin(fleet.counts, counts) : isWithin(counts, fleet.counts);
    });
  for (;;) {
    const left = fleets.filter(
      (counts) =>
        sum(counts) > 0 &&
        isCheaper(counts, best, fleets) &&
        policies.some((policy) => !isKnown(counts, policy)),
    );
    const middle = left[Math.floor(left.length / 2)];
    if (middle === undefined) return best;
    for (const policy of policies) {
      if (isKnown(middle, policy)) continue;
      const fleet = await attempt(middle, policy);
      if (!fleet.meets_goal) continue;
      best = fleet;
      break;
    }
  }
}

/** Fleets are in the order of their prices. */
function isCheaper(
  counts: readonly number[],
  than: TriedFleet,
  fleets: readonly (readonly number[])[],
): boolean {
  const place = (wanted: readonly number[]) => fleets.findIndex((fleet) => fleet.join() === wanted.join());
  return place(counts) < place(than.counts);
}

/** No kind has more hosts than the other fleet's. */
function isWithin(counts: readonly number[], other: readonly number[]): boolean {
  return counts.every((count, kind) => count <= (other[kind] ?? 0));
}

function fleetsUpTo(most: readonly number[]): (readonly number[])[] {
  return most.reduce<(readonly number[])[]>(
    (fleets, count) => fleets.flatMap((fleet) => Array.from({ length: count + 1 }, (_, n) => [...fleet, n])),
    [[]],
  );
}

function priceOf({ hosts }: SimulatedCluster, counts: readonly number[]): number {
  return hosts.reduce((price, host, kind) => price + host.price_per_hour * (counts[kind] ?? 0), 0);
}

function sum(counts: readonly number[]): number {
  return counts.reduce((total, count) => total + count, 0);
}

async function ttftOf(
  cluster: SimulatedCluster,
  counts: readonly number[],
  policy: SimulatedPolicy,
  trace: RequestTrace,
  { seed, settle }: PlanOptions,
): Promise<number | null> {
  const hosts = cluster.hosts.flatMap((host, kind) => {
    const count = counts[kind] ?? 0;
    return count === 0 ? [] : [{ ...host, count }];
  });
  const fleet = { ...cluster, hosts, system: { ...cluster.system, policy } };
  try {
    const { outcomes } = await simulate(fleet, trace, { seed, settle });
    const never_ms = Number.MAX_VALUE;
    return quantileOf(outcomes.ttft_ms.map((ms) => (Number.isNaN(ms) ? never_ms : ms)).toSorted(), 0.99);
  } catch (error) {
    const isUnfit =
      error instanceof SllmError && ["model_too_large", "checkpoint_unavailable"].includes(error.code);
    if (isUnfit) return null;
    throw error;
  }
}
