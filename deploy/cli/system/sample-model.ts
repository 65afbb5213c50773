/**
 * The sample model that a first start offers: converted into the store and deployed once. That it was offered is
 * remembered in the data folder, so a model that the user removed stays removed.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { checkpointDigest } from "../../../schema/ids.ts";
import { asModel, readCheckpoint } from "../../../worker/checkpoints/import.ts";
import { convertIntoStore } from "../checkpoints.ts";
import type { GatewayClient } from "../gateway/gateway-client.ts";
import { createStatusLine, type TextOutput } from "../terminal/progress.ts";
import { checkpointStore } from "./data-folder.ts";

export const sampleModel = {
  id: "tiny-shakespeare",
  file: "test/models/tiny-shakespeare-3m-f16.gguf",
} as const;

const offerRecord = z.object({ digest: checkpointDigest });

export interface SampleModel {
  /** Deploys the model unless it was offered before; true when the gateway has it now. */
  offer(gateway: GatewayClient): Promise<boolean>;
}

/** Converts the file unless the store has its checkpoint. Needs no gateway, so it runs while that one starts. */
export async function prepareSampleModel(
  root: string,
  data_dir: string,
  progress: TextOutput,
  signal: AbortSignal,
): Promise<SampleModel> {
  const store = checkpointStore(data_dir);
  const record = join(data_dir, "sample-model.json");
  const offered = readRecord(record);
  const isStored = offered !== null && existsSync(join(store, offered, "manifest.json"));
  const manifest = isStored
    ? asModel(await readCheckpoint(join(store, offered))).manifest
    : (
        await convertIntoStore(
          "model",
          join(root, sampleModel.file),
          { store_dir: store, disk_bytes: undefined },
          createStatusLine(progress),
          signal,
        )
      ).manifest;
  return {
    offer: async (gateway) => {
      const models = await gateway.listModels();
      const isDeployed = models.some((model) => model.id === sampleModel.id);
      if (isDeployed || offered !== null) return isDeployed;
      await gateway.deploy({ id: sampleModel.id, manifest });
      writeFileSync(record, `${JSON.stringify({ digest: manifest.digest })}\n`);
      return true;
    },
  };
}

/** Digest of the checkpoint that was offered; null before. */
function readRecord(path: string): string | null {
  if (!existsSync(path)) return null;
  return offerRecord.parse(JSON.parse(readFileSync(path, "utf8"))).digest;
}
