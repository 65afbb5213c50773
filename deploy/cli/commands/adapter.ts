/** `sllm adapter`: gives deployed models LoRA adapters, lists them, takes them away. */
import type { AdapterObject } from "../../../schema/api/adapters.ts";
import { adapterName, parseAdapterId } from "../../../schema/ids.ts";
import { convertIntoStore, findAdapterInStore } from "../checkpoints.ts";
import type { Arguments, Command } from "../command.ts";
import { exitStatus, UsageError } from "../failure.ts";
import { GatewayClient } from "../gateway/gateway-client.ts";
import { findTarget, urlArg } from "../gateway/target.ts";
import { readSettings } from "../settings/settings.ts";
import { settingsArgs, surroundingsOfProcess } from "../settings/surroundings.ts";
import { checkpointStore } from "../system/data-folder.ts";
import { listenForStop } from "../system/stop-signals.ts";
import { printLine } from "../terminal/output.ts";
import { createStatusLine } from "../terminal/progress.ts";
import { formatBytes, formatTable } from "../terminal/table.ts";

export const adapter: Command = {
  name: "adapter",
  summary: "Give a deployed model LoRA adapters (add), list them (ls), take them away (rm)",
  args: {
    action: { type: "positional", description: "add, ls or rm" },
    name: {
      type: "positional",
      required: false,
      description: "<model>:<adapter>, as requests name it; for ls a model, or nothing for all",
    },
    source: {
      type: "positional",
      required: false,
      description: "For add: GGUF file, checkpoint folder, or digest of a checkpoint in the store",
    },
    replace: { type: "boolean", description: "For add: take the place of an adapter with this name" },
    json: { type: "boolean", description: "Print JSON" },
    ...urlArg,
    ...settingsArgs,
  },
  examples: [
    ["sllm adapter add llama:legal ./legal-lora.gguf", "convert and add"],
    ["sllm adapter ls llama", "the adapters of a model"],
    ["sllm adapter rm llama:legal", "running answers still finish"],
  ],
  async run(args) {
    const flags = [{ flag: "--data-dir", path: ["data_dir"], value: args.text("data-dir") }] as const;
    const { config, ...settings } = readSettings(flags, args.text("config"), surroundingsOfProcess());
    const gateway = new GatewayClient(findTarget(args.text("url"), { config, ...settings }));
    const action = args.required("action");
    if (action !== "add" && args.text("source") !== undefined) {
      throw new UsageError(`unexpected argument '${args.text("source")}'`);
    }
    switch (action) {
      case "add": {
        const { disk_bytes } = config.worker;
        return await add(args, gateway, { store_dir: checkpointStore(config.data_dir), disk_bytes });
      }
      case "ls": {
        const adapters = await gateway.listAdapters(args.text("name"));
        printLine(args.isOn("json") ? JSON.stringify(adapters) : formatAdapters(adapters));
        return exitStatus.ok;
      }
      case "rm": {
        const { id } = readName(args);
        await gateway.removeAdapter(id);
        printLine(`${id} is removed; running answers finish first.`);
        return exitStatus.ok;
      }
      default:
        throw new UsageError(`'${action}' is none of add, ls and rm`);
    }
  },
};

async function add(
  args: Arguments,
  gateway: GatewayClient,
  room: { readonly store_dir: string; readonly disk_bytes: number | undefined },
): Promise<number> {
  const { id, model, name } = readName(args);
  const source = args.required("source");
  const stored = await findAdapterInStore(source, room.store_dir);
  const stop = listenForStop(() => process.exit(exitStatus.interrupted));
  try {
    const manifest =
      stored ??
      (await convertIntoStore("adapter", source, room, createStatusLine(process.stderr), stop.signal))
        .manifest;
    const added = await gateway.addAdapter({ model, name, manifest, replace: args.isOn("replace") });
    if (args.isOn("json")) printLine(JSON.stringify(added));
    else printLine(`${id} is added: try 'sllm chat ${id}'`);
    return exitStatus.ok;
  } catch (error) {
    if (stop.signal.aborted) return exitStatus.interrupted;
    throw error;
  } finally {
    stop.stopListening();
  }
}

function readName(args: Arguments): { id: string; model: string; name: string } {
  const id = args.required("name");
  const named = parseAdapterId(id);
  if (named !== null) return { id, model: named.model_id, name: named.name };
  const last = adapterName.safeParse(id.slice(id.lastIndexOf(":") + 1)).error?.issues[0]?.message;
  const why = id.includes(":") && last !== undefined ? `: ${last}` : "";
  throw new UsageError(`'${id}' is not of the form <model>:<adapter>${why}`);
}

/** The adapters as a table, or what to do when there is none. */
export function formatAdapters(adapters: readonly AdapterObject[]): string {
  if (adapters.length === 0)
    return "There is no adapter. 'sllm adapter add <model>:<adapter> <file.gguf>' adds one.";
  return formatTable(
    [
      { title: "NAME" },
      { title: "MODEL" },
      { title: "RANK", align: "right" },
      { title: "SIZE", align: "right" },
      { title: "CHECKPOINT" },
    ],
    adapters.map(({ id, model, rank, weights_bytes, checkpoint }) => [
      id,
      model,
      String(rank),
      formatBytes(weights_bytes),
      checkpoint.slice(0, 12),
    ]),
  );
}
