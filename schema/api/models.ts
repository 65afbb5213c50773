/** GET /v1/models and /v1/models/{id}: OpenAI's fields and the state a user wants to know. */
import { z } from "zod";
import { modelId } from "../ids.ts";
import { modelTasks } from "../vocab.ts";

export const modelStatuses = ["loaded", "loading", "unloaded", "failed"] as const;

export const modelObject = z.object({
  id: modelId,
  object: z.literal("model"),
  created: z.number().int(),
  owned_by: z.string(),
  status: z.enum(modelStatuses),
  task: z.enum(modelTasks),
  context_tokens: z.number().int(),
  /** Of an adapter: the model that it belongs to, whose status is told. */
  parent: modelId.optional(),
});
export type ModelObject = z.infer<typeof modelObject>;

export const modelList = z.object({ object: z.literal("list"), data: z.array(modelObject) });
export type ModelList = z.infer<typeof modelList>;
