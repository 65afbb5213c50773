/** Refuses, before anything is simulated, a cluster that can never serve a model of the traffic. */
import { checkCluster, type RequestTrace } from "../../../gateway/simulator/simulator.ts";
import { SllmError } from "../../../schema/error.ts";
import type { SimulatedCluster, SimulatedPolicy } from "../../../schema/simulation.ts";
import { CommandFailure } from "../failure.ts";

/** Throws CommandFailure with the first reason where one of the policies can never serve all, or with `any` where none can. */
export function checkServable(
  cluster: SimulatedCluster,
  trace: RequestTrace,
  policies: readonly SimulatedPolicy[],
  wanted: "all" | "any",
): void {
  const reasons = policies.map((policy) => reasonAgainst(cluster, trace, policy));
  const found = reasons.filter((reason) => reason !== null);
  const [first] = found;
  if (first === undefined || (wanted === "any" && found.length < reasons.length)) return;
  throw new CommandFailure(`${first.message} (${first.code})`, {
    advice: "Change the hosts, the models or the system of the cluster's file.",
    cause: first,
  });
}

function reasonAgainst(
  cluster: SimulatedCluster,
  trace: RequestTrace,
  policy: SimulatedPolicy,
): SllmError | null {
  try {
    checkCluster({ ...cluster, system: { ...cluster.system, policy } }, trace);
    return null;
  } catch (error) {
    if (error instanceof SllmError) return error;
    throw error;
  }
}
