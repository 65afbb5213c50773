/** The file that says what a simulated cluster is made of; mistakes are named by their place in it. */
import { readFileSync } from "node:fs";
import { parse } from "yaml";
import { z } from "zod";
import { type SimulatedCluster, simulatedCluster } from "../../../schema/simulation.ts";
import { CommandFailure } from "../failure.ts";

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
