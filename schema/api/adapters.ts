/** LoRA adapters of deployed models under /admin/v1/adapters; requests name them `<model>:<adapter>`. */
import { z } from "zod";
import { adapterManifest } from "../checkpoint/manifest.ts";
import { adapterName, checkpointDigest, modelId } from "../ids.ts";

/** POST /admin/v1/adapters. The manifest travels whole: it is compared with that of the model. */
export const addAdapterRequest = z.strictObject({
  model: modelId,
  name: adapterName,
  manifest: adapterManifest,
  /** Take the place of an adapter of this name instead of refusing. */
  replace: z.boolean().default(false),
});
export type AddAdapterRequest = z.output<typeof addAdapterRequest>;

/** GET /admin/v1/adapters: all, or those of one model. */
export const adaptersQuery = z.strictObject({ model: modelId.optional() });

export const adapterObject = z.object({
  /** What requests name. */
  id: modelId,
  model: modelId,
  name: adapterName,
  checkpoint: checkpointDigest,
  rank: z.number().int(),
  weights_bytes: z.number(),
  created_at: z.string(),
});
export type AdapterObject = z.infer<typeof adapterObject>;
export const adapterList = z.object({ data: z.array(adapterObject) });
