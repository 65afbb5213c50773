/** Runs one case of an experiment over its seeds, in virtual time, and pools what came out. */
import { type Job, startupBoundMs } from "../../gateway/simulator/bound/capacity.ts";
import { type ClairvoyantCluster, clairvoyantMs } from "../../gateway/simulator/bound/clairvoyant.ts";
import {
  modelsOf,
  type Summary,
  simulate,
  startupTimes,
  summarize,
} from "../../gateway/simulator/simulator.ts";
import { type Spread, spreadOf } from "../../gateway/simulator/summary.ts";
import type { RequestTrace } from "../../gateway/simulator/trace.ts";
import type { SimulatedCluster } from "../../schema/simulation.ts";
import { settle } from "../support/manual-clock.ts";
import { type Compared, nameOf } from "./cases.ts";

export interface CaseResult {
  readonly case_name: string;
  readonly name: string;
  readonly requests: number;
  readonly share_served: number;
  /** Of all requests of all seeds together. */
  readonly startup_ms: Spread;
  readonly pause_ms: Spread;
  readonly values_ms: Float64Array;
  readonly device_hours: number;
  readonly loads: { readonly host: number; readonly disk: number; readonly network: number };
  readonly migrations: number;
  readonly preemptions: number;
  readonly runs: readonly { readonly seed: number; readonly summary: Summary }[];
}

export interface Traffic {
  readonly seed: number;
  readonly trace: RequestTrace;
}

/** One policy and its queue on the same traffic. */
export async function measure(
  case_name: string,
  cluster: SimulatedCluster,
  system: Compared,
  traffic: readonly Traffic[],
): Promise<CaseResult> {
  const simulated = { ...cluster, system: { ...cluster.system, ...system } };
  const { hold_ms } = cluster.system;
  const runs: { seed: number; summary: Summary }[] = [];
  const values: number[] = [];
  const pauses: number[] = [];
  for (const { seed, trace } of traffic) {
    const simulation = await simulate(simulated, trace, { seed, settle });
    runs.push({ seed, summary: summarize(simulation, hold_ms) });
    for (const value of startupTimes(simulation.outcomes, hold_ms)) values.push(value);
    for (const pause of simulation.outcomes.pause_ms) if (pause > 0) pauses.push(pause);
  }
  const values_ms = Float64Array.from(values);
  const sum = (of: (summary: Summary) => number) =>
    runs.reduce((total, { summary }) => total + of(summary), 0);
  return {
    ...{ case_name, name: nameOf(system), requests: sum((s) => s.requests), values_ms, runs },
    share_served:
      sum((s) => s.served) /
      Math.max(
        1,
        sum((s) => s.requests),
      ),
    startup_ms: spreadOf(values_ms),
    pause_ms: spreadOf(Float64Array.from(pauses)),
    device_hours: sum((s) => s.device_hours),
    loads: {
      host: sum((s) => s.loads.host),
      disk: sum((s) => s.loads.disk),
      network: sum((s) => s.loads.origin),
    },
    migrations: sum((s) => s.migrations),
    preemptions: sum((s) => s.preemptions),
  };
}

/** What no schedule beats: the least 99th percentile over all seeds together is at least the smallest of theirs. */
export function boundOf(cluster: SimulatedCluster, traffic: readonly Traffic[], load_ms: number): number {
  const devices = cluster.hosts.reduce((sum, host) => sum + host.count * host.devices, 0);
  // Seeds are far apart in time, so that their requests together are one long trace.
  const apart_ms = 1e9;
  const jobs = jobsOf(cluster, traffic).flatMap((run, place) =>
    run.map((job) => ({ ...job, arrival_ms: place * apart_ms + job.arrival_ms })),
  );
  return startupBoundMs(jobs, { devices, load_ms }, 0.99, cluster.system.hold_ms);
}

/** What a schedule reaches that knows all requests of a run beforehand. */
export function reachedOf(
  cluster: SimulatedCluster,
  traffic: readonly Traffic[],
  seen: ClairvoyantCluster,
): number {
  return clairvoyantMs(jobsOf(cluster, traffic), seen, 0.99, cluster.system.hold_ms);
}

/** The requests of each run, as what they hold a device for. */
function jobsOf(cluster: SimulatedCluster, traffic: readonly Traffic[]): readonly (readonly Job[])[] {
  const models = modelsOf(cluster);
  return traffic.map(({ trace }) =>
    Array.from({ length: trace.count }, (_, i): Job => {
      const model = trace.model[i] ?? 0;
      const spec = models[model];
      if (spec === undefined) throw new Error("the trace names no model");
      const { prefill_base_ms, prefill_ms_per_token, token_ms } = spec;
      const prefill_ms = prefill_base_ms + prefill_ms_per_token * (trace.input_tokens[i] ?? 0);
      const service_ms = prefill_ms + token_ms * (Math.max(1, trace.output_tokens[i] ?? 1) - 1);
      return { arrival_ms: trace.arrival_ms[i] ?? 0, service_ms, model };
    }),
  );
}
