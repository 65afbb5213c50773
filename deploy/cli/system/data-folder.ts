/** The data folder: made for its owner alone, with the token that gateways and workers of this folder share. */
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { toHex } from "../../../schema/ids.ts";
import { CommandFailure } from "../failure.ts";

/** 256 random bits: nothing to guess, and twice what the settings ask for. */
const tokenBytes = 32;

/** Makes the folder if needed, readable by its owner only. */
export function makeDataFolder(data_dir: string): void {
  try {
    mkdirSync(data_dir, { recursive: true, mode: 0o700 });
    chmodSync(data_dir, 0o700);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new CommandFailure(`cannot use ${data_dir} as data folder: ${reason}`, {
      advice: "Choose another with --data-dir or SLLM_DATA_DIR.",
      cause: error,
    });
  }
}

/** The token in the folder; made at the first call and kept. The caller holds the folder's lock. */
export function clusterToken(data_dir: string): string {
  const path = join(data_dir, "cluster-token");
  try {
    const kept = readFileSync(path, "utf8").trim();
    if (kept !== "") return kept;
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw error;
  }
  const token = toHex(crypto.getRandomValues(new Uint8Array(tokenBytes)));
  writeFileSync(path, `${token}\n`, { mode: 0o600 });
  return token;
}

/** Where checkpoints lie, for the worker and for `convert`. */
export function checkpointStore(data_dir: string): string {
  return join(data_dir, "checkpoints");
}
