/** The part of a decision about instances that exist: free slots, loads under way, queues. Pure. */
import { limits } from "../../schema/limits.ts";
import type { Loser } from "./decision.ts";
import type { ModelEstimates } from "./estimates.ts";
import type { Option } from "./option.ts";
import { compareText, Shortlist } from "./order.ts";
import type { ClusterView, InstanceNode, PlacementRequest } from "./view.ts";

/** A load whose end nobody has predicted here: another gateway began it. */
const unknownLoad_ms = 2_000;

/** Instances that can serve the request. */
export interface Serving {
  /** The least loaded ones, loading ones apart; as many as a decision names. */
  readonly ready: readonly InstanceNode[];
  readonly loading: readonly InstanceNode[];
  /** How many there are in all, and how many requests they work on at once. */
  readonly count: number;
  readonly slots: number;
  readonly losers: readonly Loser[];
}

/** One pass, since popular models have thousands of instances. */
export function findServing(view: ClusterView, request: PlacementRequest): Serving {
  const ready = new Shortlist<InstanceNode>(limits.explained_candidates + 1, byLoad);
  const loading = new Shortlist<InstanceNode>(limits.explained_candidates + 1, byLoad);
  const refused = new Shortlist<InstanceNode>(limits.explained_candidates, byId);
  let count = 0;
  let slots = 0;
  for (const instance of view.instancesOf(request.model_id)) {
    if (refusal(request, instance) !== null) {
      refused.offer(instance);
      continue;
    }
    count += 1;
    slots += instance.view.slots;
    if (instance.view.state === "ready") ready.offer(instance);
    else loading.offer(instance);
  }
  const losers = refused.items.map((i) => toLoser(i, null, null, refusal(request, i) ?? ""));
  return { ready: ready.items, loading: loading.items, count, slots, losers };
}

const byId = (a: InstanceNode, b: InstanceNode) => compareText(a.view.instance_id, b.view.instance_id);
const byLoad = (a: InstanceNode, b: InstanceNode) => load(a) - load(b) || byId(a, b);

/** A slot that is free now; nothing is better. */
export function useFreeSlot({ ready }: Serving): Option | null {
  const [best, ...others] = ready;
  if (best === undefined || load(best) >= 1) return null;
  return {
    action: { kind: "use", instance_id: best.view.instance_id },
    cost_ms: 0,
    reason: "an instance has a free slot",
    losers: others.map((o) => toLoser(o, "use", 0, "more loaded")),
  };
}

/** Waiting for a load or behind others, the soonest of each; without queues that are full. */
export function waitForOthers(
  request: PlacementRequest,
  model: ModelEstimates,
  serving: Serving,
): readonly Option[] {
  const options: Option[] = [];
  // Those that go before it are served by all instances together.
  const ahead_ms = serving.slots === 0 ? 0 : (request.waiting_ahead / serving.slots) * model.service_ms;
  const [coming] = serving.loading;
  if (coming !== undefined && takesOneMore(coming)) {
    const { instance_id } = coming.view;
    const cost_ms = remainingLoadMs(coming, request.now_ms) + queueMs(coming, model) + ahead_ms;
    options.push({
      action: { kind: "wait", instance_id },
      cost_ms,
      reason: "an instance is loading",
      losers: [],
    });
  }
  const [best] = serving.ready;
  if (best !== undefined && takesOneMore(best)) {
    const { instance_id } = best.view;
    const reason = "its queue is expected to be shorter than a start";
    options.push({
      action: { kind: "queue", instance_id },
      cost_ms: queueMs(best, model) + ahead_ms,
      reason,
      losers: [],
    });
  }
  return options;
}

/** Until a slot is free for one more request, if requests hold slots as long as they usually do. */
function queueMs({ view, usage }: InstanceNode, model: ModelEstimates): number {
  const ahead = usage.in_flight - view.slots + 1;
  return ahead <= 0 ? 0 : (ahead / view.slots) * model.service_ms;
}

export function remainingLoadMs({ usage }: InstanceNode, now_ms: number): number {
  return usage.ready_at_ms === null ? unknownLoad_ms : Math.max(0, usage.ready_at_ms - now_ms);
}

function takesOneMore({ view, usage }: InstanceNode): boolean {
  return usage.in_flight < view.slots + limits.engine_queue;
}

/** Requests per slot: below 1 there is a free one. */
function load({ view, usage }: InstanceNode): number {
  return usage.in_flight / view.slots;
}

/** Why an instance of the model cannot take the request; null when it can, now or after its load. */
export function refusal(request: PlacementRequest, { view, device }: InstanceNode): string | null {
  if (view.state !== "ready" && view.state !== "loading") return `is ${view.state}`;
  if (view.checkpoint !== request.checkpoint) return "runs an older checkpoint";
  if (request.avoid.instances.has(view.instance_id)) return "failed this request before";
  if (request.avoid.workers.has(view.worker_id)) return "its worker failed this request before";
  if (request.unfit?.has(view.worker_id)) return "its worker does not have the adapter";
  if (device?.host.accepting !== true) return "its worker takes nothing new";
  return isClaimed(request, device) ? "another model is next on its device" : null;
}

/** True when another model has waited too long for the device. */
export function isClaimed(
  { claims, model_id }: PlacementRequest,
  { host, device_id }: { readonly host: { readonly worker_id: string }; readonly device_id: string },
): boolean {
  if (claims.size === 0) return false;
  const claimer = claims.get(`${host.worker_id}/${device_id}`);
  return claimer !== undefined && claimer !== model_id;
}

export function toLoser(
  { view }: InstanceNode,
  choice: Loser["choice"],
  estimate_ms: number | null,
  why: string,
): Loser {
  const { worker_id, device_id, instance_id } = view;
  return { choice, worker_id, device_id, instance_id, estimate_ms, why };
}
