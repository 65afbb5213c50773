/** Removes what ended long ago, in short transactions: rows that nobody asks for any more must not slow down the others. */
import { sql } from "drizzle-orm";
import type { Retention } from "../ports.ts";
import type { Db } from "./database.ts";

/**
 * At most `limit` rows of each kind, the oldest first; how many are gone tells whether more may be left. Requests count
 * from their arrival, so that those whose gateway died go too.
 */
export async function forget(db: Db, { older_than_ms, replay_ms, limit }: Retention): Promise<number> {
  const oldest = sql`now() - make_interval(secs => ${older_than_ms / 1000})`;
  const replayed = sql`now() - make_interval(secs => ${replay_ms / 1000})`;
  const [row] = await db.execute<{ removed: number }>(sql`
    with old_generations as (
      delete from generations where generation_id in (
        select generation_id from generations where created_at < ${oldest} order by created_at limit ${limit}
        for update skip locked
      ) returning 1
    ), old_instances as (
      delete from instances where instance_id in (
        select instance_id from instances where ended_at < ${oldest} order by ended_at limit ${limit}
        for update skip locked
      ) returning 1
    ), old_records as (
      delete from generation_records where generation_id in (
        select r.generation_id from generation_records r join generations g using (generation_id)
        where g.finished_at < ${replayed} limit ${limit}
        for update of r skip locked
      ) returning 1
    ), old_migrations as (
      delete from migrations where migration_id in (
        select migration_id from migrations where ended_at < ${oldest} order by created_at limit ${limit}
        for update skip locked
      ) returning 1
    ), old_leases as (
      delete from leases where name like 'gateway:%' and renewed_at < ${oldest} returning 1
    ), first_events as materialized (
      select event_id, at from events order by event_id limit ${limit}
    ), old_events as (
      delete from events where event_id in (select event_id from first_events where at < ${oldest}) returning 1
    )
    select ((select count(*) from old_generations) + (select count(*) from old_instances)
      + (select count(*) from old_records) + (select count(*) from old_migrations)
      + (select count(*) from old_leases) + (select count(*) from old_events))::integer as removed`);
  return row?.removed ?? 0;
}
