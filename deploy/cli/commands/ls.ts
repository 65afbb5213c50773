/** `sllm ls`: what is deployed and whether it runs; with --workers, where. */
import type { AdminWorker, DeployedModel } from "../../../schema/api/admin.ts";
import type { Command } from "../command.ts";
import { exitStatus } from "../failure.ts";
import { GatewayClient } from "../gateway/gateway-client.ts";
import { findTarget, urlArg } from "../gateway/target.ts";
import { readSettings } from "../settings/settings.ts";
import { settingsArgs, surroundingsOfProcess } from "../settings/surroundings.ts";
import { printLine } from "../terminal/output.ts";
import { formatBytes, formatCount, formatTable } from "../terminal/table.ts";

export const ls: Command = {
  name: "ls",
  summary: "List the deployed models, or the workers",
  args: {
    workers: { type: "boolean", description: "List workers instead of models" },
    json: { type: "boolean", description: "Print a JSON array" },
    ...urlArg,
    ...settingsArgs,
  },
  examples: [
    ["sllm ls", "models, their state and size"],
    ["sllm ls --workers --json", "workers, for a program"],
  ],
  async run(args) {
    const flags = [{ flag: "--data-dir", path: ["data_dir"], value: args.text("data-dir") }] as const;
    const settings = readSettings(flags, args.text("config"), surroundingsOfProcess());
    const gateway = new GatewayClient(findTarget(args.text("url"), settings));
    if (args.isOn("workers")) {
      const workers = await gateway.listWorkers();
      printLine(args.isOn("json") ? JSON.stringify(workers) : formatWorkers(workers));
    } else {
      const models = await gateway.listModels();
      printLine(args.isOn("json") ? JSON.stringify(models) : formatModels(models));
    }
    return exitStatus.ok;
  },
};

/** The models as a table, or what to do when there is none. */
export function formatModels(models: readonly DeployedModel[]): string {
  if (models.length === 0) return "No model is deployed. 'sllm deploy <name> <file.gguf>' adds one.";
  return formatTable(
    [
      { title: "NAME" },
      { title: "STATE" },
      { title: "ARCHITECTURE" },
      { title: "PARAMETERS", align: "right" },
      { title: "SIZE", align: "right" },
      { title: "CONTEXT", align: "right" },
      { title: "INSTANCES", align: "right" },
    ],
    models.map((model) => [
      model.id,
      stateOf(model),
      model.architecture,
      formatCount(model.parameters),
      formatBytes(model.weights_bytes),
      String(model.context_tokens),
      String(model.instances.length),
    ]),
  );
}

/** The state of its best instance; `idle` without any. */
function stateOf(model: DeployedModel): string {
  if (model.state === "deleting") return "deleting";
  const states = new Set(model.instances.map((instance) => instance.state));
  for (const state of ["ready", "migrating", "loading", "draining", "parked", "failed"] as const) {
    if (states.has(state)) return state;
  }
  return "idle";
}

/** The workers as a table, or what to do when there is none. */
export function formatWorkers(workers: readonly AdminWorker[]): string {
  if (workers.length === 0) return "No worker has registered. 'sllm up' starts one.";
  return formatTable(
    [
      { title: "WORKER" },
      { title: "STATE" },
      { title: "URL" },
      { title: "DEVICES" },
      { title: "RESERVED", align: "right" },
      { title: "MEMORY", align: "right" },
      { title: "CHECKPOINTS", align: "right" },
    ],
    workers.map((worker) => [
      worker.worker_id,
      worker.state,
      worker.url,
      worker.devices.map((device) => device.kind).join(", "),
      formatBytes(sum(worker.devices.map((device) => device.reserved_bytes))),
      formatBytes(sum(worker.devices.map((device) => device.memory_bytes))),
      String(new Set(worker.placements.map((placement) => placement.checkpoint)).size),
    ]),
  );
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
