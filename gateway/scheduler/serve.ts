/** The part of a decision about instances that exist: free slots, loads under way, queues. Pure. */
import { limits } from "../../schema/limits.ts";
import type { Decision, Loser } from "./decision.ts";
import type { ClusterView, InstanceView, PlacementRequest } from "./view.ts";

/**
 * Requests per slot of the fullest instances before another device is taken for the same model. A new instance
 * takes memory from other models and a whole start; this many rounds of waiting cost more.
 */
export const roundsBeforeScaleOut = 16;

/** Instances that can serve the request, least loaded first. */
export interface Serving {
  readonly ready: readonly InstanceView[];
  readonly loading: readonly InstanceView[];
  readonly losers: readonly Loser[];
}

export function findServing(view: ClusterView, request: PlacementRequest): Serving {
  const ready: InstanceView[] = [];
  const loading: InstanceView[] = [];
  const losers: Loser[] = [];
  for (const instance of view.instances) {
    if (instance.model_id !== request.model_id) continue;
    const why = refusal(view, request, instance);
    if (why !== null) losers.push(toLoser(instance, why));
    else if (instance.state === "ready") ready.push(instance);
    else loading.push(instance);
  }
  const byLoad = (a: InstanceView, b: InstanceView) =>
    load(view, a) - load(view, b) || compareText(a.instance_id, b.instance_id);
  return { ready: ready.sort(byLoad), loading: loading.sort(byLoad), losers };
}

/** A free slot, else a load under way, else a queue that is still short; null when a start is to be considered. */
export function serveNow(view: ClusterView, serving: Serving): Decision | null {
  const [best, ...others] = serving.ready;
  if (best !== undefined && load(view, best) < 1) {
    const losers = [...serving.losers, ...others.map((o) => toLoser(o, "more loaded"))];
    return {
      action: { kind: "use", instance_id: best.instance_id },
      reason: "an instance has a free slot",
      losers,
    };
  }
  const losers = [...serving.losers, ...serving.ready.map((r) => toLoser(r, "no free slot"))];
  const [coming] = serving.loading;
  if (coming !== undefined) {
    return {
      action: { kind: "wait", instance_id: coming.instance_id },
      reason: "an instance is loading",
      losers,
    };
  }
  if (best !== undefined && load(view, best) < roundsBeforeScaleOut) {
    return { action: { kind: "queue", instance_id: best.instance_id }, reason: "the queue is short", losers };
  }
  return null;
}

/** The shortest queue that still takes one; null when all are full or there is none. */
export function queueAnywhere(
  view: ClusterView,
  serving: Serving,
  losers: readonly Loser[],
): Decision | null {
  const [best] = serving.ready;
  if (best === undefined || inFlight(view, best) >= best.slots + limits.engine_queue) return null;
  return {
    action: { kind: "queue", instance_id: best.instance_id },
    reason: "no other device is free",
    losers,
  };
}

export function inFlight(view: ClusterView, instance: InstanceView): number {
  return view.in_flight.get(instance.instance_id) ?? 0;
}

/** Requests per slot: below 1 there is a free one. */
function load(view: ClusterView, instance: InstanceView): number {
  return inFlight(view, instance) / instance.slots;
}

/** Why an instance of the model cannot take the request; null when it can, now or after its load. */
function refusal(view: ClusterView, request: PlacementRequest, instance: InstanceView): string | null {
  if (instance.state !== "ready" && instance.state !== "loading") return `is ${instance.state}`;
  if (instance.checkpoint !== request.checkpoint) return "runs an older checkpoint";
  if (request.avoid.instances.has(instance.instance_id)) return "failed this request before";
  if (request.avoid.workers.has(instance.worker_id)) return "its worker failed this request before";
  const worker = view.workers.find((w) => w.worker_id === instance.worker_id);
  return worker?.accepting === true ? null : "its worker takes nothing new";
}

function toLoser(instance: InstanceView, why: string): Loser {
  const { worker_id, device_id, instance_id } = instance;
  return { worker_id, device_id, instance_id, why };
}

/** Order of code units: the same on every machine and locale. */
export function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
