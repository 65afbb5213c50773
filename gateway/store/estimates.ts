/** What gateways have learned, kept as windows of the last values: gateways add to one window, none overwrites another's. */
import { asc, sql } from "drizzle-orm";
import { type EstimateRow, estimates } from "../../schema/db/tables.ts";
import { limits } from "../../schema/limits.ts";
import type { ObservedEstimate } from "../ports.ts";
import type { Db } from "./database.ts";

/** Quantities that nobody has seen for so long are of workers and models that are gone. */
const forgottenAfter = "30 days";

/** Appends to the windows, one statement for all. */
export async function recordEstimates(db: Db, observed: readonly ObservedEstimate[]): Promise<void> {
  if (observed.length === 0) return;
  await db.execute(sql`
    with forgotten as (
      delete from estimates where updated_at < now() - ${forgottenAfter}::interval
    )
    insert into estimates as e (quantity, worker_id, model_id, device_kind, detail, values, errors, observations)
    select r.quantity, r.worker_id, r.model_id, r.device_kind, r.detail, r.values, r.errors,
      greatest(cardinality(r.values), cardinality(r.errors))
    from jsonb_to_recordset(${JSON.stringify(observed)}::jsonb) as r(
      quantity estimate_quantity, worker_id text, model_id text, device_kind text, detail text,
      values double precision[], errors double precision[]
    )
    on conflict (quantity, worker_id, model_id, device_kind, detail) do update set
      values = (e.values || excluded.values)[
        greatest(1, cardinality(e.values) + cardinality(excluded.values) - ${limits.estimate_values - 1}::integer):],
      errors = (e.errors || excluded.errors)[
        greatest(1, cardinality(e.errors) + cardinality(excluded.errors) - ${limits.estimate_errors - 1}::integer):],
      observations = e.observations + excluded.observations,
      updated_at = now()`);
}

/** By key. */
export async function listEstimates(db: Db): Promise<EstimateRow[]> {
  const { quantity, worker_id, model_id, device_kind, detail } = estimates;
  return await db
    .select()
    .from(estimates)
    .orderBy(asc(quantity), asc(worker_id), asc(model_id), asc(device_kind), asc(detail));
}
