/** The real surroundings of a command, and the flags that every command has: the one place that reads `process`. */
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import type { ArgsDef } from "citty";
import type { Surroundings } from "./settings.ts";

/** The project's folder: three above this file. */
export const root = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));

export function surroundingsOfProcess(): Surroundings {
  return { variables: process.env, folder: process.cwd(), root };
}

/** Flags of every command that reads settings. */
export const settingsArgs = {
  config: {
    type: "string",
    valueHint: "file",
    description: "Settings file (SLLM_CONFIG; ./sllm.yaml if it is there)",
  },
  "data-dir": {
    type: "string",
    valueHint: "folder",
    description: "Folder of database, checkpoints and identities (SLLM_DATA_DIR)",
  },
} as const satisfies ArgsDef;
