/** A request with the decisions for it, as the admin API shows them. Pure. */
import type { ExplainedDecision, ExplainedRequest } from "../../schema/api/admin.ts";
import type { GenerationRow } from "../../schema/db/tables.ts";
import type { ExplainedDecision as Noted } from "../dispatch/explanations.ts";
import { toAdminGeneration } from "./admin-views.ts";

export function toExplainedRequest(row: GenerationRow, decisions: readonly Noted[] | null): ExplainedRequest {
  return { ...toAdminGeneration(row), decisions: decisions?.map(toDecision) ?? null };
}

function toDecision({ action, reason, estimate_ms, losers, at_ms, times }: Noted): ExplainedDecision {
  const target = "target" in action ? action.target : null;
  const place = target ?? ("device_id" in action ? action : null);
  const instance_id = "instance_id" in action ? action.instance_id : (target?.parked ?? null);
  return {
    at: new Date(at_ms).toISOString(),
    times,
    action: action.kind,
    worker_id: place?.worker_id ?? null,
    device_id: place?.device_id ?? null,
    instance_id,
    tier: target?.tier ?? null,
    estimate_ms,
    reason,
    losers: [...losers],
  };
}
