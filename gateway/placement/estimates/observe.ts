/** What a finished start or request teaches about the cluster. */
import type { GenerationTimings } from "../../../schema/cluster/generate.ts";
import type { LoadTimings } from "../../../schema/cluster/instances.ts";
import type { ModelId, WorkerId } from "../../../schema/ids.ts";
import type { DeviceKind } from "../../../schema/vocab.ts";
import type { StartTarget } from "../../scheduler/decision.ts";
import { keyOf, type LearnedEstimates } from "./learned-estimates.ts";

/** Transfers of less say more about latency than about a link. */
const leastBytes = 16 * 1024 * 1024;

/** A start that ended well: what links did, what came on top of the bytes' travel, and how wrong the estimate was. */
export function observeStart(
  estimates: Pick<LearnedEstimates, "observe">,
  model_id: ModelId,
  target: StartTarget,
  device_kind: DeviceKind,
  timings: LoadTimings,
): void {
  const { worker_id, device_id, tier, estimate_ms, queued_ms } = target;
  const { disk_read_ms, disk_read_bytes, upload_ms = 0, upload_bytes = 0, total_ms } = timings;
  observeLink(estimates, worker_id, "disk", disk_read_bytes, disk_read_ms);
  observeLink(estimates, worker_id, `device:${device_id}`, upload_bytes, upload_ms);
  const travel_ms = Math.max(disk_read_ms, upload_ms) + queued_ms;
  const value = Math.max(0, total_ms - travel_ms);
  const detail = target.parked === null ? "start" : "resume";
  for (const about of [{ worker_id, model_id }, { model_id }, {}]) {
    estimates.observe(keyOf("init", { ...about, device_kind, detail }), { value });
  }
  if (total_ms <= 0) return;
  const error = Math.abs(estimate_ms - total_ms) / total_ms;
  estimates.observe(keyOf("start", { worker_id, device_kind, detail: tier }), { error });
}

function observeLink(
  estimates: Pick<LearnedEstimates, "observe">,
  worker_id: WorkerId,
  detail: string,
  bytes: number,
  ms: number,
): void {
  if (bytes < leastBytes || ms <= 0) return;
  estimates.observe(keyOf("bandwidth", { worker_id, detail }), { value: bytes / ms });
}

/** Prompts below this are computed in one step with others; their time says little about a token's. */
const leastPromptTokens = 16;

/** A request that ended well: how long it held its slot, and what its prompt cost. */
export function observeGeneration(
  estimates: Pick<LearnedEstimates, "observe">,
  model_id: ModelId,
  device_kind: DeviceKind,
  prompt_tokens: number,
  { prefill_ms, decode_ms }: GenerationTimings,
): void {
  estimates.observe(keyOf("service", { model_id }), { value: prefill_ms + decode_ms });
  if (prompt_tokens < leastPromptTokens) return;
  // Two values of one window: it holds an even number of them, so the pairs stay together.
  const key = keyOf("prefill", { model_id, device_kind });
  estimates.observe(key, { value: prompt_tokens });
  estimates.observe(key, { value: prefill_ms });
}
