/** `sllm pin` and `sllm unpin`: which checkpoints of the store are never evicted. */
import { checkpointDigest } from "../../../schema/ids.ts";
import { pinCheckpoint } from "../../../worker/checkpoints/import.ts";
import type { Arguments, Command } from "../command.ts";
import { CommandFailure, exitStatus } from "../failure.ts";
import { GatewayClient } from "../gateway/gateway-client.ts";
import { findTarget, urlArg } from "../gateway/target.ts";
import { readSettings } from "../settings/settings.ts";
import { settingsArgs, surroundingsOfProcess } from "../settings/surroundings.ts";
import { checkpointStore } from "../system/data-folder.ts";
import { printLine } from "../terminal/output.ts";

const args = {
  target: { type: "positional", description: "A deployed model, or the digest of a checkpoint" },
  ...urlArg,
  ...settingsArgs,
} as const;

export const pin: Command = {
  name: "pin",
  summary: "Keep a model's checkpoint on disk, whatever the budget",
  args,
  examples: [["sllm pin llama", "its checkpoint is never evicted"]],
  run: (given) => change(given, true),
};

export const unpin: Command = {
  name: "unpin",
  summary: "Let a pinned checkpoint be evicted again",
  args,
  examples: [["sllm unpin llama", "it may go when room is needed and no model names it"]],
  run: (given) => change(given, false),
};

async function change(given: Arguments, isPinned: boolean): Promise<number> {
  const target = given.required("target");
  const flags = [{ flag: "--data-dir", path: ["data_dir"], value: given.text("data-dir") }] as const;
  const settings = readSettings(flags, given.text("config"), surroundingsOfProcess());
  const digest = checkpointDigest.safeParse(target).success
    ? target
    : await digestOfModel(new GatewayClient(findTarget(given.text("url"), settings)), target);
  await pinCheckpoint(checkpointStore(settings.config.data_dir), digest, isPinned);
  printLine(`${digest} is ${isPinned ? "pinned" : "no longer pinned"}.`);
  return exitStatus.ok;
}

async function digestOfModel(gateway: GatewayClient, name: string): Promise<string> {
  const model = (await gateway.listModels()).find((one) => one.id === name);
  if (model !== undefined) return model.checkpoint;
  throw new CommandFailure(`there is no model '${name}'`, { advice: "'sllm ls' lists the deployed ones." });
}
