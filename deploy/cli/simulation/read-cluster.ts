/** The file that says what a simulated cluster is made of; mistakes are named by their place in it. */
import { readFileSync, writeFileSync } from "node:fs";
import type { ArgsDef } from "citty";
import { parse, stringify } from "yaml";
import { z } from "zod";
import { type SimulatedCluster, simulatedCluster } from "../../../schema/simulation.ts";
import type { Arguments } from "../command.ts";
import { CommandFailure, UsageError } from "../failure.ts";
import { GatewayClient } from "../gateway/gateway-client.ts";
import { findTarget, urlArg } from "../gateway/target.ts";
import { readSettings } from "../settings/settings.ts";
import { settingsArgs, surroundingsOfProcess } from "../settings/surroundings.ts";
import { clusterOfFleet } from "./measured-fleet.ts";

/** Flags of commands that simulate: the file may be left out where the fleet of a gateway is meant. */
export const clusterArgs = {
  cluster: { type: "positional", required: false, description: "YAML file with hosts, models and system" },
  "from-fleet": {
    type: "boolean",
    description: "Simulate the live fleet, with what its gateway has learned",
  },
  save: { type: "string", valueHint: "file", description: "Write the cluster that is simulated as YAML" },
  ...urlArg,
  ...settingsArgs,
} as const satisfies ArgsDef;

/** The file's cluster, or with `--from-fleet` the live one. Throws UsageError where neither or both are named. */
export async function findCluster(args: Arguments): Promise<SimulatedCluster> {
  const file = args.text("cluster");
  const isLive = args.isOn("from-fleet");
  if (isLive === (file !== undefined)) throw new UsageError("name a file of a cluster, or give --from-fleet");
  const cluster = file === undefined ? await readFleet(args) : readCluster(file);
  const save = args.text("save");
  if (save !== undefined) writeFileSync(save, stringify(cluster));
  return cluster;
}

async function readFleet(args: Arguments): Promise<SimulatedCluster> {
  const flags = [{ flag: "--data-dir", path: ["data_dir"], value: args.text("data-dir") }] as const;
  const settings = readSettings(flags, args.text("config"), surroundingsOfProcess());
  const gateway = new GatewayClient(findTarget(args.text("url"), settings));
  const [workers, models, estimates] = await Promise.all([
    gateway.listWorkers(),
    gateway.listModels(),
    gateway.listEstimates(),
  ]);
  return clusterOfFleet({ workers, models, estimates });
}

/** Throws CommandFailure for a file that cannot be read, is not YAML, or describes no cluster. */
export function readCluster(file: string): SimulatedCluster {
  let content: unknown;
  try {
    content = parse(readFileSync(file, "utf8"));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new CommandFailure(`${file} cannot be read: ${reason}`, { cause: error });
  }
  const parsed = simulatedCluster.safeParse(content);
  if (parsed.success) return parsed.data;
  throw new CommandFailure(`${file} describes no cluster:\n${z.prettifyError(parsed.error)}`, {
    advice: "docs/simulate.md has an example with every field.",
  });
}
