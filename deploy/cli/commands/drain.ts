/** `sllm drain <worker>`: a worker's streams move to other workers, then its process ends. */
import type { Command } from "../command.ts";
import { CommandFailure, exitStatus } from "../failure.ts";
import { GatewayClient } from "../gateway/gateway-client.ts";
import { findTarget, urlArg } from "../gateway/target.ts";
import { readSettings } from "../settings/settings.ts";
import { settingsArgs, surroundingsOfProcess } from "../settings/surroundings.ts";
import { printLine, printNote } from "../terminal/output.ts";

/** How often the gateway is asked whether the worker is gone. */
const poll_ms = 250;

export const drain: Command = {
  name: "drain",
  summary: "Move a worker's streams to other workers, then end it",
  args: {
    worker: { type: "positional", description: "Id of the worker, as 'sllm ls --workers' shows it" },
    wait: { type: "string", valueHint: "time", description: "How long to wait until it is gone (60s)" },
    ...urlArg,
    ...settingsArgs,
  },
  examples: [["sllm drain w-0123456789abcdef", "before its host is taken down"]],
  async run(args) {
    const flags = [{ flag: "--data-dir", path: ["data_dir"], value: args.text("data-dir") }] as const;
    const settings = readSettings(flags, args.text("config"), surroundingsOfProcess());
    const gateway = new GatewayClient(findTarget(args.text("url"), settings));
    const { worker_id, generations } = await gateway.drainWorker(args.required("worker"));
    printNote(`${worker_id} takes nothing new; ${generations} streams leave it.`);
    const until_ms = performance.now() + (args.duration("wait") ?? 60_000);
    while (performance.now() < until_ms) {
      const worker = (await gateway.listWorkers()).find((one) => one.worker_id === worker_id);
      if (worker === undefined || worker.state === "gone" || worker.state === "lost") {
        printLine(`${worker_id} is gone.`);
        return exitStatus.ok;
      }
      await new Promise((resolve) => setTimeout(resolve, poll_ms));
    }
    throw new CommandFailure(`${worker_id} has not ended yet`, {
      advice: "It ends when its streams have left, or when worker.drain_ms is over.",
    });
  },
};
