/** What a finished start or request teaches about the cluster. */
import type { GenerationTimings } from "../../../schema/cluster/generate.ts";
import type { LoadTimings } from "../../../schema/cluster/instances.ts";
import type { InstanceId, ModelId, WorkerId } from "../../../schema/ids.ts";
import type { DeviceKind } from "../../../schema/vocab.ts";
import type { StartTarget } from "../../scheduler/decision.ts";
import type { StartHow } from "../../scheduler/estimates.ts";
import { keyOf, type LearnedEstimates, moveDetail, networkDetail } from "./learned-estimates.ts";
import { startDetail } from "./start-detail.ts";

/** Transfers of less say more about latency than about a link. */
const leastBytes = 16 * 1024 * 1024;

/** An engine that says hello sooner was there before the load. */
const warmProcess_ms = 20;

/** What the engine of a load began with, by what the load spent its time on. */
export function startHowOf(parked: InstanceId | null, timings: LoadTimings): StartHow {
  if (parked !== null) return "resume";
  if (timings.model_build_ms === 0) return "built";
  return timings.process_start_ms < warmProcess_ms ? "warm" : "cold";
}

/**
 * A start that ended well: what links did, what came on top of the bytes' travel, and how wrong the estimate was. Where
 * bytes had to wait for those of other loads, their time says nothing about a link.
 */
export function observeStart(
  estimates: Pick<LearnedEstimates, "observe">,
  model_id: ModelId,
  target: StartTarget,
  device_kind: DeviceKind,
  timings: LoadTimings,
): void {
  const { worker_id, device_id, tier, parked, estimate_ms, queued_ms, is_beside } = target;
  // The timings do not tell the network's part apart.
  if (tier === "peer" || tier === "origin") return;
  const { disk_read_ms, disk_read_bytes, upload_ms = 0, upload_bytes = 0, total_ms } = timings;
  const how = startHowOf(parked, timings);
  const built_ms = how === "resume" ? 0 : timings.process_start_ms + timings.model_build_ms;
  const learn = (quantity: "build" | "init", value: number) => {
    const detail = startDetail({ how, is_in_memory: disk_read_bytes === 0, is_beside });
    for (const about of [{ worker_id, model_id }, { model_id }, {}]) {
      estimates.observe(keyOf(quantity, { ...about, device_kind, detail }), { value });
    }
  };
  learn("build", built_ms);
  if (queued_ms === 0) {
    for (const about of [{}, { model_id }]) {
      observeLink(estimates, { worker_id, ...about, detail: "disk" }, disk_read_bytes, disk_read_ms);
    }
    observeLink(estimates, { worker_id, detail: `device:${device_id}` }, upload_bytes, upload_ms);
    learn("init", Math.max(0, total_ms - Math.max(disk_read_ms, upload_ms, built_ms)));
  }
  if (total_ms <= 0) return;
  const error = Math.abs(estimate_ms - total_ms) / total_ms;
  const detail = parked === null ? tier : "parked";
  estimates.observe(keyOf("start", { worker_id, device_kind, detail }), { error });
}

function observeLink(
  estimates: Pick<LearnedEstimates, "observe">,
  link: { readonly worker_id: WorkerId; readonly model_id?: ModelId; readonly detail: string },
  bytes: number,
  ms: number,
): void {
  if (bytes < leastBytes || ms <= 0) return;
  estimates.observe(keyOf("bandwidth", link), { value: bytes / ms });
}

/** A stream was computed at the worker that it moved to, beside others and in small steps. */
export function observeMove(
  estimates: Pick<LearnedEstimates, "observe" | "model">,
  model_id: ModelId,
  device_kind: DeviceKind,
  tokens: number,
  ms: number,
): void {
  if (tokens < leastPromptTokens || ms <= 0) return;
  // Two values of one window, as prompts are.
  const key = keyOf("prefill", { model_id, device_kind, detail: moveDetail });
  const expected_ms = estimates.model(model_id).migrationMs(device_kind, tokens, 1);
  estimates.observe(key, { error: Math.abs(expected_ms - ms) / ms });
  estimates.observe(key, { value: tokens });
  estimates.observe(key, { value: ms });
}

/** A KV cache went from engine to engine: all that it took, so that the next one of its size is foreseen. */
export function observeKvTransfer(
  estimates: Pick<LearnedEstimates, "observe" | "links">,
  worker_id: WorkerId,
  bytes: number,
  ms: number,
): void {
  if (bytes < leastKvBytes || ms <= 0) return;
  const key = keyOf("bandwidth", { worker_id, detail: networkDetail });
  const rate = estimates.links(worker_id)?.get(networkDetail);
  if (rate !== undefined) estimates.observe(key, { error: Math.abs(bytes / rate - ms) / ms });
  estimates.observe(key, { value: bytes / ms });
}

/** A cache of less is there in a step or two, whatever the network does. */
const leastKvBytes = 1024 * 1024;

/** Prompts below this are computed in one step with others; their time says little about a token's. */
const leastPromptTokens = 16;

/** A request that ended well: how long it held its slot, and what its prompt cost. */
export function observeGeneration(
  estimates: Pick<LearnedEstimates, "observe">,
  model_id: ModelId,
  device_kind: DeviceKind,
  prompt_tokens: number,
  completion_tokens: number,
  { prefill_ms, decode_ms }: GenerationTimings,
): void {
  estimates.observe(keyOf("service", { model_id }), { value: prefill_ms + decode_ms });
  if (completion_tokens > 0) {
    const key = keyOf("decode", { model_id });
    estimates.observe(key, { value: completion_tokens });
    estimates.observe(key, { value: decode_ms });
  }
  if (prompt_tokens < leastPromptTokens) return;
  // Two values of one window: it holds an even number of them, so the pairs stay together.
  const key = keyOf("prefill", { model_id, device_kind });
  estimates.observe(key, { value: prompt_tokens });
  estimates.observe(key, { value: prefill_ms });
}
