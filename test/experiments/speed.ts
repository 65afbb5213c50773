/** How fast the simulator is: a million requests on 16 devices, and ten thousand hosts. */
import { gammaTrace, gsm8k, simulate } from "../../gateway/simulator/simulator.ts";
import { type SimulatedCluster, simulatedCluster } from "../../schema/simulation.ts";
import { settle } from "../support/manual-clock.ts";
import { paperCluster, plenty } from "./cases.ts";

export interface Speed {
  readonly name: string;
  readonly hosts: number;
  readonly requests: number;
  /** In the cluster's own time. */
  readonly simulated_s: number;
  readonly wall_s: number;
}

export async function runSpeed(requests: number, hosts: number): Promise<readonly Speed[]> {
  // Sixteen models with eight slots each, all warm most of the time.
  const paper = paperCluster("opt-6.7b", plenty, 8);
  const warm = { ...paper, models: paper.models.map((model) => ({ ...model, copies: 16 })) };
  return [
    await time("a million requests", warm, 16, requests, 20),
    await time("ten thousand hosts", manyHosts(hosts), 500, 10_000, 50),
  ];
}

/** Each model on twenty disks; nothing is fetched, so that a decision looks at these twenty. */
function manyHosts(count: number): SimulatedCluster {
  const paper = paperCluster("opt-6.7b", plenty);
  const hosts = paper.hosts.map((host) => ({ ...host, count }));
  const models = paper.models.map((model) => ({ ...model, copies: 500, disk_copies: 20 }));
  return simulatedCluster.parse({ hosts, models, system: { ...paper.system, fetch: false } });
}

async function time(
  name: string,
  cluster: SimulatedCluster,
  models: number,
  requests: number,
  requests_per_s: number,
): Promise<Speed> {
  const duration_ms = (requests / requests_per_s) * 1_000;
  const workload = {
    requests_per_s,
    cv: 1,
    zipf: 0.5,
    duration_ms,
    stream: "aggregate" as const,
    lengths: gsm8k,
  };
  const trace = gammaTrace(workload, models, 1);
  const began_ms = performance.now();
  const simulation = await simulate(cluster, trace, { seed: 1, settle });
  const wall_s = (performance.now() - began_ms) / 1_000;
  const hosts = cluster.hosts.reduce((sum, { count }) => sum + count, 0);
  return { name, hosts, requests: trace.count, simulated_s: simulation.duration_ms / 1_000, wall_s };
}
