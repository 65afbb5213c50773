/** `sllm rm`: takes a model out of service. */
import type { Command } from "../command.ts";
import { CommandFailure, exitStatus } from "../failure.ts";
import { GatewayClient } from "../gateway/gateway-client.ts";
import { findTarget, urlArg } from "../gateway/target.ts";
import { readSettings } from "../settings/settings.ts";
import { settingsArgs, surroundingsOfProcess } from "../settings/surroundings.ts";
import { printLine } from "../terminal/output.ts";

export const rm: Command = {
  name: "rm",
  summary: "Take a model out of service; its checkpoint stays in the store",
  args: {
    name: { type: "positional", description: "Name of the model" },
    ...urlArg,
    ...settingsArgs,
  },
  examples: [["sllm rm llama", "running answers still finish"]],
  async run(args) {
    const name = args.required("name");
    const flags = [{ flag: "--data-dir", path: ["data_dir"], value: args.text("data-dir") }] as const;
    const settings = readSettings(flags, args.text("config"), surroundingsOfProcess());
    const gateway = new GatewayClient(findTarget(args.text("url"), settings));
    if (!(await gateway.remove(name))) {
      throw new CommandFailure(`there is no model '${name}'`, {
        advice: "'sllm ls' lists the deployed ones.",
      });
    }
    printLine(`${name} is removed; running answers finish first.`);
    return exitStatus.ok;
  },
};
