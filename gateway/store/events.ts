/** The audit trail: read newest first, written only inside the statements that change a state. */
import { and, desc, eq, type SQL, sql } from "drizzle-orm";
import { type EventRow, events } from "../../schema/db/tables.ts";
import type { EventEntity } from "../../schema/vocab.ts";
import type { Db } from "./database.ts";

/**
 * Statement, for use as a CTE, that logs one event per row of `source`, which has the columns entity_id,
 * from_state, to_state and reason.
 */
export function logEvents(entity: EventEntity, source: SQL): SQL {
  return sql`insert into events (entity, entity_id, from_state, to_state, reason)
    select ${entity}::event_entity, entity_id, from_state, to_state, reason from ${source}`;
}

/** Newest first. */
export async function listEvents(
  db: Db,
  filter: { entity?: EventEntity; entity_id?: string; limit: number },
): Promise<EventRow[]> {
  return await db
    .select()
    .from(events)
    .where(
      and(
        filter.entity === undefined ? undefined : eq(events.entity, filter.entity),
        filter.entity_id === undefined ? undefined : eq(events.entity_id, filter.entity_id),
      ),
    )
    .orderBy(desc(events.event_id))
    .limit(filter.limit);
}
