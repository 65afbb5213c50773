/** Headers that tell about a generation: its id, and whether it met a running instance. */
import type { GenerationId } from "../../schema/ids.ts";
import type { GenerationUpdate } from "../dispatch/updates.ts";

/** `x-sllm-cold` is `hit` or `cold`, and absent as long as the generation waits for something else. */
export function answerHeaders(
  generation_id: GenerationId,
  seen: readonly GenerationUpdate[],
): Record<string, string> {
  let cold: "hit" | "cold" | null = null;
  for (const update of seen) {
    if (update.type === "placed") cold = update.cold_start ? "cold" : "hit";
    else if (update.type === "waiting" && update.state === "loading") cold = "cold";
  }
  return { "x-sllm-generation": generation_id, ...(cold === null ? {} : { "x-sllm-cold": cold }) };
}
