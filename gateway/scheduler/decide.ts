/**
 * The scheduler: where a request runs, decided from a view and nothing else. No clock, no randomness, no I/O;
 * the same view and request give the same decision. Whoever applies it verifies it against the store.
 */
import { findCandidates } from "./candidates.ts";
import { type Decision, type Loser, shortened } from "./decision.ts";
import { cheapest, type Option, wholeCostMs } from "./option.ts";
import { policies } from "./policies.ts";
import { refuse } from "./refuse.ts";
import { findServing, type Serving, toLoser, useFreeSlot, waitForOthers } from "./serve.ts";
import { losersOf } from "./start-options.ts";
import type { ClusterView, PlacementRequest } from "./view.ts";

/**
 * What another instance of a model that runs already costs the others, in time: it takes memory and a link from them, so
 * it must save its request at least this much.
 */
export const scaleOut_ms = 5_000;

/**
 * A free slot is taken at once. Else waiting for an instance, and whatever the policy would do to start another one, are
 * compared by the time until the request is served.
 */
export function decide(view: ClusterView, request: PlacementRequest): Decision {
  const serving = findServing(view, request);
  const free = useFreeSlot(serving);
  if (free !== null) return toDecision(free, [...free.losers, ...serving.losers]);
  const model = view.estimates.model(request.model_id);
  const waits = waitForOthers(request, model, serving);
  const wait = cheapest(waits);
  if (!mayStart(serving, request)) {
    const losers = [...waits.flatMap((o) => losersByOption(view, request, o, wait)), ...serving.losers];
    return wait === null ? refuse(view, request, serving, losers) : toDecision(wait, losers);
  }
  const policy = policies[request.policy];
  const candidates = findCandidates(view, request, model, policy.rank(request));
  const starts = policy.options(view, request, candidates).filter((option) => option !== null);
  const start = cheapest(starts);
  const chosen = better(wait, start, request.queue_delay_ms);
  const losers = [
    ...waits.flatMap((o) => losersByOption(view, request, o, chosen)),
    ...losersOf(candidates),
    ...serving.losers,
  ];
  return chosen === null ? refuse(view, request, serving, losers) : toDecision(chosen, losers);
}

/** Waiting for instances that exist wins unless it is too long and a start is sooner by what it costs the others. */
function better(wait: Option | null, start: Option | null, queue_delay_ms: number): Option | null {
  if (wait === null || start === null) return wait ?? start;
  const isWorthIt = wholeCostMs(start) + Math.min(scaleOut_ms, queue_delay_ms) < wait.cost_ms;
  return start.action.kind !== "hold" && isWorthIt && wait.cost_ms > queue_delay_ms ? start : wait;
}

/** Those that cannot serve, for example on a worker that drains, stand in nobody's way. */
function mayStart(serving: Serving, request: PlacementRequest): boolean {
  return serving.count < request.max_instances;
}

function losersByOption(
  view: ClusterView,
  request: PlacementRequest,
  option: Option,
  chosen: Option | null,
): readonly Loser[] {
  const { action, cost_ms } = option;
  if (option === chosen || !("instance_id" in action)) return [];
  const instance = view.instancesOf(request.model_id).find((i) => i.view.instance_id === action.instance_id);
  return instance === undefined ? [] : [toLoser(instance, action.kind, cost_ms, "would take longer")];
}

function toDecision(option: Option, losers: readonly Loser[]): Decision {
  const { action, cost_ms, reason } = option;
  const others = losers.filter((l) => !isChosen(l, action));
  const estimate_ms = Number.isFinite(cost_ms) ? cost_ms : null;
  return {
    action,
    estimate_ms,
    reason,
    losers: shortened(others),
  };
}

function isChosen(loser: Loser, action: Decision["action"]): boolean {
  if ("instance_id" in action) return loser.instance_id === action.instance_id;
  const place = "target" in action ? action.target : "device_id" in action ? action : null;
  if (place === null || loser.choice === null) return false;
  return loser.worker_id === place.worker_id && loser.device_id === place.device_id;
}
