/** A request with the decisions for it, as the admin API shows them. Pure. */
import type { ExplainedRequest } from "../../schema/api/admin.ts";
import type { GenerationRow } from "../../schema/db/tables.ts";
import { type ExplainedDecision, toExplainedDecision } from "../dispatch/explanations.ts";
import { toAdminGeneration } from "./admin-views.ts";

/** What this gateway has noted itself is the newest; otherwise what the row's gateway has written. */
export function toExplainedRequest(
  row: GenerationRow,
  noted: readonly ExplainedDecision[] | null,
): ExplainedRequest {
  return { ...toAdminGeneration(row), decisions: noted?.map(toExplainedDecision) ?? row.decisions };
}
