/** Policies that a simulation compares, by the flag that `simulate` and `plan` share. */
import {
  type SimulatedCluster,
  type SimulatedPolicy,
  simulatedPolicies,
} from "../../../schema/simulation.ts";
import type { Arguments } from "../command.ts";
import { UsageError } from "../failure.ts";

/** The cluster's own without the flag. Throws UsageError listing the known ones. */
export function policiesOf(args: Arguments, { system }: SimulatedCluster): readonly SimulatedPolicy[] {
  const text = args.text("policy");
  if (text === undefined) return [system.policy];
  return text.split(",").map((name) => {
    const policy = simulatedPolicies.find((known) => known === name.trim());
    if (policy !== undefined) return policy;
    throw new UsageError(`there is no policy '${name.trim()}'; known are ${simulatedPolicies.join(", ")}`);
  });
}
