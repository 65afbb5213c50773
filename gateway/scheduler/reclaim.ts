/** Which idle instances of a device have to go for a start, and which running ones a preemption would stop. Pure. */
import { type Candidate, freeBytes } from "./candidates.ts";
import { isIdle } from "./cluster-index.ts";
import { compareText } from "./order.ts";
import { isClaimed } from "./serve.ts";
import type { InstanceNode, PlacementRequest } from "./view.ts";

/**
 * What stopping an idle instance is taken to cost: its end, and that its next request has to start it again. A parked
 * one had to come back anyway.
 */
export const stop_ms = { ready: 500, parked: 100 } as const;

/**
 * Idle instances of the device until their memory suffices, parked ones before running ones and the least recently
 * used of each first; then those that turn out not to be needed are spared, in the opposite order. Null when even all
 * of them do not free enough. `freed_bytes` will be free besides.
 */
export function chooseVictims(candidate: Candidate, freed_bytes = 0): readonly InstanceNode[] | null {
  const { device, parked } = candidate;
  const idle = device.instances
    .filter((i) => i !== parked && isIdle(i))
    .sort(
      (a, b) =>
        runs(a) - runs(b) ||
        a.usage.last_used_ms - b.usage.last_used_ms ||
        compareText(a.view.instance_id, b.view.instance_id),
    );
  return chooseUntil(idle, candidate.needed_bytes - freeBytes(device) - freed_bytes);
}

export function stopMs(victims: readonly InstanceNode[]): number {
  return victims.reduce((sum, v) => sum + (runs(v) === 1 ? stop_ms.ready : stop_ms.parked), 0);
}

/**
 * Running instances of other models that a preemption stops, the least work lost first, after all idle ones. What loads,
 * migrates or is being stopped is left alone. Null when that is not enough.
 */
export function choosePreempted(
  candidate: Candidate,
  request: PlacementRequest,
): readonly InstanceNode[] | null {
  const { model_id } = request;
  if (isClaimed(request, candidate.device)) return null;
  const { device, parked } = candidate;
  const stoppable = device.instances
    .filter((i) => i !== parked && (i.view.state === "ready" || i.view.state === "parked"))
    .filter((i) => !i.kept && (i.view.model_id !== model_id || i.usage.in_flight === 0))
    .sort(
      (a, b) =>
        a.usage.in_flight - b.usage.in_flight ||
        a.usage.tokens - b.usage.tokens ||
        a.usage.last_used_ms - b.usage.last_used_ms ||
        compareText(a.view.instance_id, b.view.instance_id),
    );
  return chooseUntil(stoppable, candidate.needed_bytes - freeBytes(device));
}

function chooseUntil(ordered: readonly InstanceNode[], needed_bytes: number): InstanceNode[] | null {
  const chosen: InstanceNode[] = [];
  let missing = needed_bytes;
  for (const instance of ordered) {
    if (missing <= 0) break;
    chosen.push(instance);
    missing -= instance.view.memory_bytes;
  }
  if (missing > 0) return null;
  for (const instance of chosen.toReversed()) {
    if (missing + instance.view.memory_bytes > 0) continue;
    chosen.splice(chosen.indexOf(instance), 1);
    missing += instance.view.memory_bytes;
  }
  return chosen;
}

function runs({ view }: InstanceNode): number {
  return view.state === "ready" ? 1 : 0;
}
