/** What is kept of a generation that ended: the move of its row, with the timeline. Pure. */
import type { Timeline } from "../../schema/api/admin.ts";
import type { GenerationMove } from "../ports.ts";
import type { Generation, Marks } from "./generation.ts";

/** The row's move to the end that the generation reached. Throws for one that has not ended. */
export function toEndMove(generation: Generation): GenerationMove {
  const { generation_id, phase, error, cold_start } = generation;
  if (phase !== "finished" && phase !== "cancelled" && phase !== "failed") {
    throw new Error(`generation ${generation_id} is still ${phase}`);
  }
  const timeline_ms = toTimeline(generation.marks);
  const completion_tokens =
    generation.completion_tokens ?? (generation.next_index > 0 ? generation.next_index : null);
  return {
    generation_id,
    epoch: generation.epoch,
    from: ["queued", "running"],
    to: phase,
    reason: generation.finish_reason ?? error?.code ?? "the client left",
    cold_start,
    ...(generation.worker_id === null ? {} : { worker_id: generation.worker_id }),
    ...(generation.instance_id === null ? {} : { instance_id: generation.instance_id }),
    ...(generation.prompt_tokens === null ? {} : { prompt_tokens: generation.prompt_tokens }),
    ...(completion_tokens === null ? {} : { completion_tokens }),
    ...(generation.finish_reason === null ? {} : { finish_reason: generation.finish_reason }),
    ...(error === null ? {} : { error: { code: error.code, message: error.message } }),
    ...(timeline_ms === null ? {} : { timeline_ms }),
  };
}

/** Where the time to the first token went; null when there was none. Tenths of milliseconds. */
export function toTimeline(marks: Marks): Timeline | null {
  const { arrived_ms, told_ms, sent_ms, first_token_ms, load, worker } = marks;
  if (told_ms === null || sent_ms === null || first_token_ms === null) return null;
  const prefill = worker?.prefill_ms ?? 0;
  const afterPrefill = first_token_ms - sent_ms - prefill - (worker?.queue_ms ?? 0);
  return {
    queue: tenths(told_ms - arrived_ms),
    process_start: tenths(load?.process_start_ms ?? 0),
    disk_read: tenths(load?.disk_read_ms ?? 0),
    model_build: tenths(load?.model_build_ms ?? 0),
    resume: tenths(load?.resume_ms ?? 0),
    prefill: tenths(prefill),
    first_token: tenths(Math.max(0, afterPrefill)),
    total: tenths(first_token_ms - arrived_ms),
  };
}

function tenths(value_ms: number): number {
  return Math.round(value_ms * 10) / 10;
}
