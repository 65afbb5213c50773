/** `sllm convert`: a GGUF file into a checkpoint of the store. */

import { convertIntoStore } from "../checkpoints.ts";
import type { Command } from "../command.ts";
import { exitStatus } from "../failure.ts";
import { readSettings } from "../settings/settings.ts";
import { settingsArgs, surroundingsOfProcess } from "../settings/surroundings.ts";
import { checkpointStore } from "../system/data-folder.ts";
import { listenForStop } from "../system/stop-signals.ts";
import { printLine } from "../terminal/output.ts";
import { createStatusLine } from "../terminal/progress.ts";
import { formatBytes, formatCount } from "../terminal/table.ts";

export const convert: Command = {
  name: "convert",
  summary: "Turn a GGUF file (single or split) into a checkpoint",
  args: {
    file: { type: "positional", description: "The GGUF file; of a split one, the first part" },
    ...settingsArgs,
    store: {
      type: "string",
      valueHint: "folder",
      description: "Where the checkpoint goes; the data folder's store if left out",
    },
    json: { type: "boolean", description: "Print the result as JSON" },
  },
  examples: [
    ["sllm convert model-q4_k_m.gguf", "into the data folder's store"],
    ["sllm convert big-00001-of-00004.gguf --store /mnt/models", "a split file into another store"],
  ],
  async run(args) {
    const source = args.required("file");
    const flags = [{ flag: "--data-dir", path: ["data_dir"], value: args.text("data-dir") }] as const;
    const { config } = readSettings(flags, args.text("config"), surroundingsOfProcess());
    const store = args.text("store") ?? checkpointStore(config.data_dir);
    // The budget is that of the worker's store.
    const disk_bytes = args.text("store") === undefined ? config.worker.disk_bytes : undefined;
    const room = { store_dir: store, disk_bytes };
    const stop = listenForStop(() => process.exit(exitStatus.interrupted));
    try {
      const status = createStatusLine(process.stderr);
      const { manifest, directory } = await convertIntoStore("model", source, room, status, stop.signal);
      const { model, weights, digest } = manifest;
      if (args.isOn("json")) {
        printLine(JSON.stringify({ digest, directory, weights_bytes: weights.bytes, model }));
      } else {
        const facts = [
          model.architecture,
          `${formatCount(model.parameters)} parameters`,
          model.quantisation,
          formatBytes(weights.bytes),
        ];
        printLine(`${digest}\n${facts.join(", ")}, in ${directory}`);
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
