/** What the layout program answers to the process that started it. */
import { z } from "zod";
import { wireError } from "../../../schema/error.ts";
import { limits } from "../../../schema/limits.ts";

/** `order` is the text of sllm_layout_plan: names of tensors in the order in which the engine lays them out. */
export const layoutReply = z.union([
  z.strictObject({ order: z.object({ tensors: z.array(z.string()).max(limits.tensors) }) }),
  z.strictObject({ error: wireError }),
]);
export type LayoutReply = z.infer<typeof layoutReply>;
