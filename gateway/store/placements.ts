/** Placements follow what workers report; nothing else writes them. */
import { type SQL, sql } from "drizzle-orm";
import type { PlacementReport } from "../../schema/cluster/membership.ts";
import { logEvents } from "./events.ts";

/** The checkpoints that a report names, as a row set; not after `taken`, which a late heartbeat leaves empty. */
export function reportedCheckpoints(report: readonly PlacementReport[]): SQL {
  const digests = [...new Set(report.map((placement) => placement.checkpoint))];
  return sql`jsonb_array_elements_text(${JSON.stringify(digests)}::jsonb) as r(checkpoint)`;
}

/**
 * CTEs that make the placements of a worker equal to its report. `reporter` names a CTE with the one row of the
 * worker (worker_id); when it is empty nothing happens. Rows that did not change are not written.
 */
export function mergePlacements(reporter: SQL, report: readonly PlacementReport[]): SQL {
  return sql`
    reported_placements as (
      select distinct on (r.checkpoint, r.tier) w.worker_id, r.checkpoint, r.tier, r.state, r.bytes_present
      from ${reporter} w, jsonb_to_recordset(${JSON.stringify(report)}::jsonb)
        as r(checkpoint text, tier tier, state placement_state, bytes_present bigint)
    ), changed_placements as (
      select r.*, p.state as from_state
      from reported_placements r left join placements p using (worker_id, checkpoint, tier)
      where p.state is distinct from r.state or p.bytes_present is distinct from r.bytes_present
    ), written_placements as (
      insert into placements (worker_id, checkpoint, tier, state, bytes_present)
      select worker_id, checkpoint, tier, state, bytes_present from changed_placements
      on conflict (worker_id, checkpoint, tier) do update
        set state = excluded.state, bytes_present = excluded.bytes_present, updated_at = now()
    ), removed_placements as (
      delete from placements p using ${reporter} w
      where p.worker_id = w.worker_id and not exists (
        select 1 from reported_placements r where r.checkpoint = p.checkpoint and r.tier = p.tier
      )
      returning p.worker_id, p.checkpoint, p.tier, p.state as from_state
    ), placements_log as (${logEvents(
      "placement",
      sql`(
        select worker_id || '/' || checkpoint || '/' || tier as entity_id, from_state::text,
          state::text as to_state, 'reported' as reason
        from changed_placements where from_state is distinct from state
        union all
        select worker_id || '/' || checkpoint || '/' || tier, from_state::text, 'absent', 'reported'
        from removed_placements
      ) p`,
    )})`;
}
