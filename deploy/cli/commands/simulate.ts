/** `sllm simulate`: what a fleet would do with some traffic, policy by policy, in the fleet's own time. */
import { writeFileSync } from "node:fs";
import {
  cdfPicture,
  simulate as runSimulation,
  startupTimes,
  summarize,
} from "../../../gateway/simulator/simulator.ts";
import { simulatedPolicies } from "../../../schema/simulation.ts";
import type { Command } from "../command.ts";
import { exitStatus } from "../failure.ts";
import { policiesOf } from "../simulation/policies.ts";
import { clusterArgs, findCluster } from "../simulation/read-cluster.ts";
import { formatSummaries } from "../simulation/report.ts";
import { checkServable } from "../simulation/servable.ts";
import { settle } from "../simulation/settle.ts";
import { readWorkload, seedOf, workloadArgs } from "../simulation/workload.ts";
import { printLine, printNote } from "../terminal/output.ts";

export const simulate: Command = {
  name: "simulate",
  summary: "Play traffic against a simulated cluster and compare policies",
  args: {
    ...clusterArgs,
    policy: {
      type: "string",
      valueHint: "names",
      description: `Of ${simulatedPolicies.join(", ")}; the file's`,
    },
    ...workloadArgs,
    json: { type: "boolean", description: "Print a JSON object" },
    cdf: {
      type: "string",
      valueHint: "file",
      description: "Write the distribution of start-up times as SVG",
    },
  },
  examples: [
    ["sllm simulate cluster.yaml --rps 1.4 --policy startup-optimal,random", "bursts, two policies"],
    [
      "sllm simulate --from-fleet --rps 2 --save fleet.yaml",
      "the live fleet, to be changed and simulated again",
    ],
    ["sllm simulate cluster.yaml --trace azure_llm_2023_code.csv.gz --cdf startup.svg", "a real trace"],
  ],
  async run(args) {
    const cluster = await findCluster(args);
    const seed = seedOf(args);
    const trace = readWorkload(args, cluster, seed);
    const { hold_ms } = cluster.system;
    const cases: { name: string; summary: ReturnType<typeof summarize>; values_ms: Float64Array }[] = [];
    const policies = policiesOf(args, cluster);
    checkServable(cluster, trace, policies, "all");
    for (const policy of policies) {
      const simulated = { ...cluster, system: { ...cluster.system, policy } };
      const simulation = await runSimulation(simulated, trace, { seed, settle });
      const values_ms = startupTimes(simulation.outcomes, hold_ms);
      cases.push({ name: policy, summary: summarize(simulation, hold_ms), values_ms });
    }
    const picture = args.text("cdf");
    if (picture !== undefined)
      writeFileSync(picture, cdfPicture(`Start-up times, ${trace.count} requests`, cases));
    if (args.isOn("json")) {
      printLine(
        JSON.stringify({
          seed,
          requests: trace.count,
          cases: cases.map(({ name, summary }) => ({ name, ...summary })),
        }),
      );
    } else {
      printLine(formatSummaries(cases));
      printNote(`${trace.count} requests, seed ${seed}`);
    }
    return exitStatus.ok;
  },
};
