/** How far policies are from the best schedule there is: small random cases whose optimum can be found. */
import { leastStartupSumMs } from "../../gateway/simulator/bound/exact.ts";
import { SeededRandom } from "../../gateway/simulator/random.ts";
import { simulate } from "../../gateway/simulator/simulator.ts";
import { toTrace } from "../../gateway/simulator/trace.ts";
import { type SimulatedPolicy, simulatedCluster } from "../../schema/simulation.ts";
import { settle } from "../support/manual-clock.ts";

export interface Distance {
  readonly policy: SimulatedPolicy;
  /** Sum of start-up times over all cases, to that of the best schedules. */
  readonly ratio: number;
  /** Cases in which it was as good as the best. */
  readonly share_best: number;
  /** Largest ratio of a case. */
  readonly worst: number;
}

export const optimumCases = { count: 200, requests: 7, devices: 2, models: 3, seed: 1 } as const;
const load_ms = 1_000;
const token_ms = 20;

const cluster = simulatedCluster.parse({
  hosts: [
    {
      ...{
        name: "small",
        count: 1,
        devices: optimumCases.devices,
        device_memory_bytes: 11e9,
        bus_bytes_per_s: 10e9,
      },
      // All bytes come as fast: the optimum knows one time for a start.
      ...{ host_memory_bytes: 100e9, disk_bytes: 100e9, disk_bytes_per_s: 1e15 },
    },
  ],
  models: [
    {
      ...{
        name: "m",
        copies: optimumCases.models,
        weights_bytes: 10e9,
        kv_bytes_per_token: 1,
        context_tokens: 1_024,
      },
      ...{ prefill_ms_per_token: 0, token_ms, stop_ms: 0, keep_alive_ms: 300_000 },
    },
  ],
  system: { turn_ms: 250 },
});

export async function runOptimum(): Promise<readonly Distance[]> {
  const sums = new Map<
    SimulatedPolicy,
    { policy_ms: number; best_ms: number; same: number; worst: number }
  >();
  for (let i = 0; i < optimumCases.count; i++) {
    const random = new SeededRandom(optimumCases.seed).fork(`case ${i}`);
    const trace = toTrace(
      Array.from({ length: optimumCases.requests }, () => ({
        arrival_ms: random.below(6_000),
        model: random.below(optimumCases.models),
        input_tokens: 1,
        output_tokens: 10 + random.below(100),
      })),
    );
    const jobs = Array.from({ length: trace.count }, (_, k) => ({
      arrival_ms: trace.arrival_ms[k] ?? 0,
      model: trace.model[k] ?? 0,
      service_ms: token_ms * ((trace.output_tokens[k] ?? 1) - 1),
    }));
    const best_ms = leastStartupSumMs(jobs, { devices: optimumCases.devices, load_ms });
    for (const policy of ["startup-optimal", "locality", "preemptive", "random"] as const) {
      const simulated = { ...cluster, system: { ...cluster.system, policy } };
      const { outcomes } = await simulate(simulated, trace, { seed: i, settle });
      const policy_ms = outcomes.startup_ms.reduce((total, ms) => total + ms, 0);
      const sum = sums.get(policy) ?? { policy_ms: 0, best_ms: 0, same: 0, worst: 0 };
      sum.policy_ms += policy_ms;
      sum.best_ms += best_ms;
      sum.same += policy_ms <= best_ms + 1 ? 1 : 0;
      sum.worst = Math.max(sum.worst, policy_ms / best_ms);
      sums.set(policy, sum);
    }
  }
  return [...sums].map(([policy, { policy_ms, best_ms, same, worst }]) => ({
    ...{ policy, worst, ratio: policy_ms / best_ms },
    share_best: same / optimumCases.count,
  }));
}
