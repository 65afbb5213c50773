/** `sllm plan`: the cheapest fleet and policy that serve some traffic as fast as wanted. */
import { type Plan, planFleet } from "../../../gateway/simulator/simulator.ts";
import { type SimulatedCluster, simulatedPolicies } from "../../../schema/simulation.ts";
import type { Command } from "../command.ts";
import { CommandFailure, exitStatus, UsageError } from "../failure.ts";
import { policiesOf } from "../simulation/policies.ts";
import { clusterArgs, findCluster } from "../simulation/read-cluster.ts";
import { seconds } from "../simulation/report.ts";
import { checkServable } from "../simulation/servable.ts";
import { settle } from "../simulation/settle.ts";
import { readWorkload, seedOf, workloadArgs } from "../simulation/workload.ts";
import { printLine, printNote } from "../terminal/output.ts";
import { formatTable } from "../terminal/table.ts";

/** Fleets that kinds and counts make up; more would be simulated for days. */
const mostFleets = 100_000;

export const plan: Command = {
  name: "plan",
  summary: "Find the cheapest fleet that serves some traffic fast enough",
  args: {
    ...clusterArgs,
    slo: {
      type: "string",
      valueHint: "time",
      description: "99 of 100 requests have their first token by then (10s)",
    },
    policy: {
      type: "string",
      valueHint: "names",
      description: `Of ${simulatedPolicies.join(", ")}; the file's`,
    },
    ...workloadArgs,
    json: { type: "boolean", description: "Print a JSON object" },
  },
  examples: [
    ["sllm plan cluster.yaml --rps 1.4 --slo 10s --policy startup-optimal,random", "bursts, two policies"],
  ],
  async run(args) {
    const cluster = await findCluster(args);
    const seed = seedOf(args);
    const ttft_p99_ms = args.duration("slo") ?? 10_000;
    if (ttft_p99_ms === 0) throw new UsageError("--slo takes a time above nothing");
    const fleets = cluster.hosts.reduce((product, { count }) => product * (count + 1), 1);
    if (fleets > mostFleets) {
      throw new CommandFailure(`the hosts make up ${fleets} fleets; at most ${mostFleets} can be compared`, {
        advice: "Lower the counts of the hosts in the file.",
      });
    }
    const trace = readWorkload(args, cluster, seed);
    const policies = policiesOf(args, cluster);
    checkServable(cluster, trace, policies, "any");
    const found = await planFleet(cluster, trace, { ttft_p99_ms }, { seed, settle, policies });
    if (args.isOn("json")) printLine(JSON.stringify({ seed, requests: trace.count, ttft_p99_ms, ...found }));
    else {
      printLine(formatPlan(cluster, found));
      printNote(`${trace.count} requests, seed ${seed}`);
    }
    return found.chosen === null ? exitStatus.failed : exitStatus.ok;
  },
};

/** What was tried, by price, and what it came to. */
export function formatPlan({ hosts }: SimulatedCluster, { chosen, tried }: Plan): string {
  const table = formatTable(
    [
      { title: "POLICY" },
      ...hosts.map(({ name }) => ({ title: name.toUpperCase(), align: "right" as const })),
      { title: "PRICE PER HOUR", align: "right" },
      { title: "TTFT P99", align: "right" },
      { title: "" },
    ],
    tried
      .toSorted((a, b) => a.price_per_hour - b.price_per_hour)
      .map((fleet) => [
        fleet.policy,
        ...fleet.counts.map(String),
        fleet.price_per_hour.toFixed(2),
        fleet.ttft_p99_ms === null ? "does not fit" : ttftText(fleet.ttft_p99_ms),
        fleet === chosen ? "chosen" : fleet.meets_goal ? "fast enough" : "",
      ]),
  );
  return chosen === null ? `${table}\n\nNo fleet of these hosts is fast enough.` : table;
}

function ttftText(ms: number): string {
  return ms === Number.MAX_VALUE ? "not served" : seconds(ms);
}
