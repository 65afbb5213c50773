/** Where one more instance of a model would start, whether anybody waits for it or not. Pure. */
import { findCandidates } from "./candidates.ts";
import type { Action } from "./decision.ts";
import { cheapest } from "./option.ts";
import { policies } from "./policies.ts";
import type { ClusterView, PlacementRequest } from "./view.ts";

export interface PlannedStart {
  readonly action: Extract<Action, { kind: "start" | "reclaim" }>;
  readonly cost_ms: number;
  readonly reason: string;
}

/**
 * The policy's choice among free memory, and where `may_reclaim` among devices whose idle instances make room; never
 * where work would have to end or move. Null where there is no such place.
 */
export function decideStart(
  view: ClusterView,
  request: PlacementRequest,
  may_reclaim: boolean,
): PlannedStart | null {
  const policy = policies[request.policy];
  const model = view.estimates.model(request.model_id);
  const found = findCandidates(view, request, model, policy.rank(request));
  const candidates = { ...found, reclaimable: may_reclaim ? found.reclaimable : [], busy: [] };
  const options = policy.options(view, request, candidates).filter((option) => option !== null);
  const best = cheapest(options);
  if (best === null) return null;
  const { action, cost_ms, reason } = best;
  return action.kind === "start" || action.kind === "reclaim" ? { action, cost_ms, reason } : null;
}
