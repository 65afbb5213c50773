/** How long running work keeps the memory of a device. Pure. */
import { type Candidate, freeBytes } from "./candidates.ts";
import { isIdle } from "./cluster-index.ts";
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
    if (isIdle(instance.view, instance.usage)) missing -= bytes;
    else inUse.push({ left_ms: leftMs(view, instance, now_ms), bytes });
  }
  inUse.sort((a, b) => a.left_ms - b.left_ms || b.bytes - a.bytes);
  let wait_ms = 0;
  for (const { left_ms, bytes } of inUse) {
    if (missing <= 0) break;
    wait_ms = left_ms;
    missing -= bytes;
  }
  return missing > 0 ? Number.POSITIVE_INFINITY : wait_ms;
}

/**
 * Until an instance is expected to be idle. Work that has gone on for long goes on for long: what is left is at least
 * what has passed, so that nobody waits for ever for an end that was due.
 */
function leftMs(view: ClusterView, instance: InstanceNode, now_ms: number): number {
  const { state, slots, model_id } = instance.view;
  if (state === "draining") return drain_ms;
  const { in_flight, busy_since_ms } = instance.usage;
  const rounds = Math.max(1, Math.ceil(in_flight / slots));
  const work_ms = rounds * view.estimates.model(model_id).service_ms;
  if (state === "loading") return remainingLoadMs(instance, now_ms) + work_ms;
  return Math.max(work_ms, busy_since_ms === null ? 0 : now_ms - busy_since_ms);
}
