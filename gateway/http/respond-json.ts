/** Answers with one JSON body, once all choices have ended. */
import type { Usage } from "../../schema/api/answers.ts";
import type { FinishReason } from "../../schema/vocab.ts";
import type { AnswerPiece, GenerationRun, GenerationUpdate } from "../dispatch/updates.ts";
import { answerHeaders } from "./answer-headers.ts";
import { type CompletionShape, sumUsage } from "./completion-shape.ts";

interface OpenChoice {
  readonly pieces: AnswerPiece[];
  finish_reason: FinishReason;
}

/** Throws what the generation fails with, at whatever point: nothing was sent yet. */
export async function respondJson(run: GenerationRun, shape: CompletionShape, n: number): Promise<Response> {
  const choices: OpenChoice[] = Array.from({ length: n }, () => ({ pieces: [], finish_reason: "stop" }));
  const usages: Usage[] = [];
  let placed: GenerationUpdate[] = [];
  for await (const update of run.updates) {
    if (update.type === "placed") placed = [update];
    if (update.type !== "text" && update.type !== "done") continue;
    const choice = choices[update.choice];
    if (choice === undefined) throw new Error(`there is no choice ${update.choice}`);
    choice.pieces.push(update);
    if (update.type !== "done") continue;
    choice.finish_reason = update.finish_reason;
    usages.push(update.usage);
  }
  if (usages.length !== n) throw new Error("a generation ended without its last update");
  const headers = answerHeaders(run.generation_id, placed);
  return Response.json(shape.whole(choices, sumUsage(usages)), { headers });
}
