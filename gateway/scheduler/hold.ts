/** How long running work keeps the memory of a device. Pure. */
import { type Candidate, freeBytes } from "./candidates.ts";
import { isIdle } from "./cluster-index.ts";
import { stop_ms } from "./reclaim.ts";
import { remainingWorkMs } from "./remaining.ts";
import { remainingLoadMs } from "./serve.ts";
import type { ClusterView, InstanceNode } from "./view.ts";

/** Until an instance that is being stopped has gone. */
const drain_ms = 1_000;

/** Until enough memory of a busy device can be taken without stopping work; infinite when work alone is not in the way. */
export function holdMs(view: ClusterView, candidate: Candidate, now_ms: number): number {
  const { device, parked, needed_bytes } = candidate;
  let missing = needed_bytes - freeBytes(device);
  const inUse: { readonly left_ms: number; readonly bytes: number }[] = [];
  for (const instance of device.instances) {
    if (instance === parked) continue;
    const bytes = instance.view.memory_bytes;
    if (isIdle(instance)) missing -= bytes;
    else if (instance.kept) continue;
    else inUse.push({ left_ms: leftMs(view, instance, now_ms), bytes });
  }
  inUse.sort((a, b) => a.left_ms - b.left_ms || b.bytes - a.bytes);
  let wait_ms = 0;
  let stops_ms = 0;
  for (const { left_ms, bytes } of inUse) {
    if (missing <= 0) break;
    wait_ms = left_ms;
    missing -= bytes;
    // It will be idle by then, and has to be stopped as one that is idle now.
    stops_ms += stop_ms.ready;
  }
  return missing > 0 ? Number.POSITIVE_INFINITY : wait_ms + stops_ms;
}

/**
 * Until an instance is expected to be idle, by the tokens that its work has still to make. Where these are not counted,
 * what is left is at least what has passed, so that nobody waits for ever for an end that was due.
 */
function leftMs(view: ClusterView, instance: InstanceNode, now_ms: number): number {
  const { state, slots, model_id } = instance.view;
  if (state === "draining") return drain_ms;
  const { in_flight, busy_since_ms } = instance.usage;
  const model = view.estimates.model(model_id);
  const rounds = Math.max(1, Math.ceil(in_flight / slots));
  if (state === "loading") return remainingLoadMs(instance, now_ms) + rounds * model.service_ms;
  const counted_ms = remainingWorkMs(instance, model, now_ms);
  if (counted_ms !== null) return counted_ms + (rounds - 1) * model.service_ms;
  return Math.max(rounds * model.service_ms, busy_since_ms === null ? 0 : now_ms - busy_since_ms);
}
