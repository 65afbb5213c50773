/** Answers with one JSON body, once the generation has ended. */
import type { GenerationRun, GenerationUpdate } from "../dispatch/updates.ts";
import { answerHeaders } from "./answer-headers.ts";
import type { CompletionShape } from "./completion-shape.ts";

/** Throws what the generation fails with, at whatever point: nothing was sent yet. */
export async function respondJson(run: GenerationRun, shape: CompletionShape): Promise<Response> {
  let text = "";
  let placed: GenerationUpdate[] = [];
  for await (const update of run.updates) {
    if (update.type === "placed") placed = [update];
    if (update.type === "text") text += update.text;
    if (update.type !== "done") continue;
    const body = shape.whole(text + update.text, update.finish_reason, update.usage);
    return Response.json(body, { headers: answerHeaders(run.generation_id, placed) });
  }
  throw new Error("a generation ended without its last update");
}
