/** The paper's cluster under bursts: every size, rate and policy, with every model on every disk and with one copy each. */
import { gammaTrace, gsm8k } from "../../gateway/simulator/simulator.ts";
import {
  clairvoyantCluster,
  compared,
  cv,
  duration_ms,
  leastLoadMs,
  paperCluster,
  plenty,
  rates_per_s,
  type Shelves,
  type SizeName,
  scarce,
  seeds,
  sizes,
  zipf,
} from "./cases.ts";
import { boundOf, type CaseResult, measure, reachedOf, type Traffic } from "./measure.ts";
import type { CaseReport } from "./report.ts";

/** Of one size and one way to keep weights, a case per rate. */
export async function runPaper(
  size: SizeName,
  shelves: Shelves,
  rates: readonly number[] = rates_per_s,
): Promise<CaseReport[]> {
  const cluster = paperCluster(size, shelves);
  const reports: CaseReport[] = [];
  for (const requests_per_s of rates) {
    const stream = "aggregate" as const;
    const workload = { requests_per_s, cv, zipf, duration_ms, stream, lengths: gsm8k };
    const traffic = seeds.map(
      (seed): Traffic => ({ seed, trace: gammaTrace(workload, sizes[size].copies, seed) }),
    );
    const title = `${size}, ${requests_per_s} requests per second`;
    const results: CaseResult[] = [];
    for (const system of compared) results.push(await measure(title, cluster, system, traffic));
    process.stderr.write(`${title}\n`);
    const bound_ms = boundOf(cluster, traffic, leastLoadMs(size));
    const reached_ms = reachedOf(cluster, traffic, clairvoyantCluster(size, shelves));
    reports.push({ title, results, bound_ms, reached_ms });
  }
  return reports;
}

export const paperShelves = { plenty, scarce } as const;
