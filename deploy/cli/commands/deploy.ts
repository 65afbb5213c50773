/** `sllm deploy`: makes a model available under a name, converting its file first if needed. */
import type { ModelSettings } from "../../../schema/api/admin.ts";
import { modelId } from "../../../schema/ids.ts";
import { limits } from "../../../schema/limits.ts";
import { convertIntoStore, findInStore } from "../checkpoints.ts";
import type { Arguments, Command } from "../command.ts";
import { exitStatus, UsageError } from "../failure.ts";
import { GatewayClient } from "../gateway/gateway-client.ts";
import { findTarget, urlArg } from "../gateway/target.ts";
import { readSettings } from "../settings/settings.ts";
import { settingsArgs, surroundingsOfProcess } from "../settings/surroundings.ts";
import { checkpointStore } from "../system/data-folder.ts";
import { listenForStop } from "../system/stop-signals.ts";
import { printLine, printNote } from "../terminal/output.ts";
import { createStatusLine } from "../terminal/progress.ts";

export const deploy: Command = {
  name: "deploy",
  summary: "Make a model available under a name",
  args: {
    name: { type: "positional", description: "Name that clients send as 'model'" },
    source: {
      type: "positional",
      description: "GGUF file, checkpoint folder, or digest of a checkpoint in the store",
    },
    context: {
      type: "string",
      valueHint: "tokens",
      description: "Context of one request; the model's own, at most 4096, if left out",
    },
    slots: { type: "string", valueHint: "n", description: "Requests an instance works on at once (4)" },
    "kv-tokens": {
      type: "string",
      valueHint: "tokens",
      description: "KV cache of all slots together; a context for each slot if left out",
    },
    deterministic: {
      type: "boolean",
      description: "Answers depend on their request alone, to the last bit; slower",
    },
    "keep-alive": {
      type: "string",
      valueHint: "time",
      description: "Idle time before it is stopped, e.g. 30s or 5m",
    },
    min: {
      type: "string",
      valueHint: "n",
      description: "Instances kept running, whether anybody asks or not (0)",
    },
    max: {
      type: "string",
      valueHint: "n",
      description: "Instances at most; as many as devices can run it if left out",
    },
    "target-concurrency": {
      type: "string",
      valueHint: "n",
      description: "Requests per instance above which more are started",
    },
    "queue-delay": {
      type: "string",
      valueHint: "time",
      description: "Expected wait above which more instances are started (5s)",
    },
    preload: { type: "boolean", description: "Put the weights into host memory before the first request" },
    replace: { type: "boolean", description: "Take the place of a model with this name" },
    json: { type: "boolean", description: "Print the deployed model as JSON" },
    ...urlArg,
    ...settingsArgs,
  },
  examples: [
    ["sllm deploy llama ./llama-3.2-1b-q4_k_m.gguf", "convert and deploy"],
    [
      "sllm deploy llama ./llama-3.2-1b-q4_k_m.gguf --context 8192 --keep-alive 30s --replace",
      "with other settings",
    ],
  ],
  async run(args) {
    const [name, source] = [args.required("name"), args.required("source")];
    const valid = modelId.safeParse(name);
    if (!valid.success)
      throw new UsageError(`'${name}' cannot be a model's name: ${valid.error.issues[0]?.message}`);
    const context_tokens = args.count("context", 16, limits.context_tokens);
    const slots = args.count("slots", 1, limits.slots);
    const kv_tokens = args.count("kv-tokens", 16, limits.context_tokens * limits.slots);
    const keep_alive_ms = args.duration("keep-alive");
    const scaling = scalingArgs(args);
    const flags = [{ flag: "--data-dir", path: ["data_dir"], value: args.text("data-dir") }] as const;
    const settings = readSettings(flags, args.text("config"), surroundingsOfProcess());
    const gateway = new GatewayClient(findTarget(args.text("url"), settings));
    const store = checkpointStore(settings.config.data_dir);
    const room = { store_dir: store, disk_bytes: settings.config.worker.disk_bytes };
    const stored = await findInStore(source, store);
    const workers = await gateway.listWorkers(); // before a long conversion: is there anybody to deploy to?
    const stop = listenForStop(() => process.exit(exitStatus.interrupted));
    try {
      const manifest =
        stored ??
        (await convertIntoStore("model", source, room, createStatusLine(process.stderr), stop.signal))
          .manifest;
      const model = await gateway.deploy({
        id: name,
        manifest,
        replace: args.isOn("replace"),
        settings: {
          ...(context_tokens === undefined ? {} : { context_tokens }),
          ...(slots === undefined ? {} : { slots }),
          ...(kv_tokens === undefined ? {} : { kv_tokens }),
          ...(args.isOn("deterministic") ? { deterministic: true } : {}),
          ...(keep_alive_ms === undefined ? {} : { keep_alive_ms }),
          ...scaling,
        },
      });
      if (args.isOn("json")) printLine(JSON.stringify(model));
      else printLine(`${model.id} is deployed: try 'sllm chat ${model.id}'`);
      if (!workers.some((worker) => worker.state === "ready")) {
        printNote("No worker is connected: requests fail until one is ('sllm up').");
      }
      return exitStatus.ok;
    } catch (error) {
      if (stop.signal.aborted) return exitStatus.interrupted;
      throw error;
    } finally {
      stop.stopListening();
    }
  },
};

/** What is left out is left to the gateway. */
function scalingArgs(args: Arguments): Partial<ModelSettings> {
  const min_instances = args.count("min", 0, limits.model_instances);
  const max_instances = args.count("max", 1, limits.model_instances);
  const target_concurrency = args.count("target-concurrency", 1, limits.model_concurrency);
  const queue_delay_ms = args.duration("queue-delay");
  return {
    ...(min_instances === undefined ? {} : { min_instances }),
    ...(max_instances === undefined ? {} : { max_instances }),
    ...(target_concurrency === undefined ? {} : { target_concurrency }),
    ...(queue_delay_ms === undefined ? {} : { queue_delay_ms }),
    ...(args.isOn("preload") ? { preload: true } : {}),
  };
}
