/** `sllm verify`: whether the checkpoints of a store are still what their manifests say. */

import { checkpointDigest } from "../../../schema/ids.ts";
import { limits } from "../../../schema/limits.ts";
import {
  type Damage,
  type VerifiedStore,
  type VerifyOptions,
  verifyStore,
} from "../../../worker/checkpoints/import.ts";
import type { Command } from "../command.ts";
import { exitStatus, UsageError } from "../failure.ts";
import { readSettings } from "../settings/settings.ts";
import { settingsArgs, surroundingsOfProcess } from "../settings/surroundings.ts";
import { checkpointStore } from "../system/data-folder.ts";
import { listenForStop } from "../system/stop-signals.ts";
import { printLine } from "../terminal/output.ts";
import { createStatusLine, formatProgress } from "../terminal/progress.ts";
import { formatBytes } from "../terminal/table.ts";

export const verify: Command = {
  name: "verify",
  summary: "Compare the checkpoints of a store with their digests",
  args: {
    ...settingsArgs,
    store: {
      type: "string",
      valueHint: "folder",
      description: "The store; the data folder's if left out",
    },
    strong: { type: "boolean", description: "Compare SHA-256 of all weights too: slower, finds forgeries" },
    json: { type: "boolean", description: "Print the result as JSON" },
  },
  rest: { name: "digest", description: "Checkpoints to read; all of the store if left out" },
  examples: [
    ["sllm verify", "everything in the data folder's store"],
    ["sllm verify --store /mnt/models --strong --json", "another store, for a program"],
  ],
  async run(args) {
    const flags = [{ flag: "--data-dir", path: ["data_dir"], value: args.text("data-dir") }] as const;
    const { config } = readSettings(flags, args.text("config"), surroundingsOfProcess());
    const stop = listenForStop(() => process.exit(exitStatus.interrupted));
    try {
      const result = await verifyWithProgress({
        store_dir: args.text("store") ?? checkpointStore(config.data_dir),
        digests: readDigests(args.rest),
        strong: args.isOn("strong"),
        signal: stop.signal,
      });
      printLine(args.isOn("json") ? JSON.stringify(result) : formatVerified(result));
      const isWhole = result.checkpoints.every((checkpoint) => checkpoint.damages.length === 0);
      return isWhole ? exitStatus.ok : exitStatus.failed;
    } catch (error) {
      if (stop.signal.aborted) return exitStatus.interrupted;
      throw error;
    } finally {
      stop.stopListening();
    }
  },
};

function readDigests(given: readonly string[]): readonly string[] | undefined {
  const wrong = given.find((text) => !checkpointDigest.safeParse(text).success);
  if (wrong !== undefined) throw new UsageError(`'${wrong}' is no digest: it has 64 hexadecimal digits`);
  return given.length === 0 ? undefined : given;
}

async function verifyWithProgress(options: VerifyOptions): Promise<VerifiedStore> {
  const status = createStatusLine(process.stderr);
  try {
    return await verifyStore({
      ...options,
      on_progress: ({ digest, bytes_done, bytes_total }) =>
        status.show(`reading ${digest.slice(0, 12)} ${formatProgress(bytes_done, bytes_total)}`),
    });
  } finally {
    status.clear();
  }
}

/** One line per checkpoint, its damages below it, and a line that sums up. */
export function formatVerified({ store_dir, checkpoints, leftovers }: VerifiedStore): string {
  const damaged = checkpoints.filter((checkpoint) => checkpoint.damages.length > 0).length;
  const bytes = checkpoints.reduce((total, checkpoint) => total + checkpoint.bytes, 0);
  const are = (count: number) => (count === 1 ? "is" : "are");
  const counted = `${checkpoints.length} checkpoint${checkpoints.length === 1 ? "" : "s"} in ${store_dir}`;
  const sum =
    damaged === 0
      ? `${counted} ${are(checkpoints.length)} whole, ${formatBytes(bytes)} compared.`
      : `${damaged} of ${counted} ${are(damaged)} damaged. ` +
        `Converting ${damaged === 1 ? "its source again mends it" : "their sources again mends them"}.`;
  return [
    ...checkpoints.flatMap(({ digest, damages }) => [
      `${digest}  ${damages.length === 0 ? "ok" : "damaged"}`,
      ...damages.map(formatDamage),
      ...(damages.length === limits.verify_damages ? [`  only the first ${damages.length} are listed`] : []),
    ]),
    ...leftovers.map((name) => `${name}  a conversion that runs, or was cut off and is removed by the next`),
    sum,
  ].join("\n");
}

function formatDamage({ file, offset, expected, found }: Damage): string {
  const place = offset === null ? file : `${file} at byte ${offset}`;
  return `  ${place}: expected ${expected}, found ${found}`;
}
