/** Tells a generation that has ended again, from what the store kept of it. */
import { SllmError } from "../../schema/error.ts";
import type { StoredGeneration } from "../ports.ts";
import { isOnPath } from "./due.ts";
import { type ReadFrom, refuseBeyond } from "./live-generation.ts";
import { hasCalls, tailOf } from "./told.ts";
import type { GenerationUpdate } from "./updates.ts";

/**
 * Everything after a token. Throws what it failed with, `cancelled`, `invalid_request` for a token beyond the end, and
 * `generation_lost` for one that is not on its path, or where its end is not known.
 */
export async function* replay(
  { row, record, events }: StoredGeneration,
  { after, seen_worker }: ReadFrom,
): AsyncGenerator<GenerationUpdate, void> {
  const { done, hops } = record;
  const last = events.at(-1);
  const next_index = last === undefined ? 0 : last.first_index + last.tokens.length;
  if (row.state === "finished") refuseBeyond(after, next_index);
  if (after >= 0 && seen_worker !== null && !isOnPath(hops, seen_worker, after)) {
    throw new SllmError(
      "generation_lost",
      "The generation went on without tokens that were told to this client.",
    );
  }
  const { worker_id, instance_id, cold_start } = row;
  yield { type: "placed", worker_id: worker_id ?? "", instance_id: instance_id ?? "", cold_start };
  yield { type: "accepted", prompt_tokens: row.prompt_tokens ?? 0 };
  for (const event of events) {
    const last_token_index = event.first_index + event.tokens.length - 1;
    if (last_token_index <= after) continue;
    const { tokens, delta } = tailOf(event, Math.max(event.first_index, after + 1));
    const text = tokens.map((token) => token.text).join("");
    yield { type: "text", choice: 0, text, delta: delta ?? null, tokens, last_token_index };
  }
  if (row.state === "cancelled") throw new SllmError("cancelled", "The generation was cancelled.");
  if (done === null) {
    const code = row.error_code ?? "generation_lost";
    throw new SllmError(code, row.error_message ?? "The end of the generation is not known any more.");
  }
  const { text, delta, finish_reason, prompt_tokens, completion_tokens, cached_tokens = 0 } = done;
  const usage = {
    ...{ prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens },
    prompt_tokens_details: { cached_tokens },
  };
  const piece = { choice: 0, text, delta: delta ?? null, tokens: [], last_token_index: next_index - 1 };
  yield { type: "done", ...piece, finish_reason, usage, had_calls: hasCalls(events) };
}
