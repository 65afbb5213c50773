/** Streams on their way from worker to worker. Who moves what, and why, is decided elsewhere. */
import { and, desc, eq, sql } from "drizzle-orm";
import { type MigrationRow, migrations } from "../../schema/db/tables.ts";
import { type MigrationState, migrationMoves } from "../../schema/vocab.ts";
import type { MigrationMove, NewMigration, StateStore } from "../ports.ts";
import type { Db } from "./database.ts";
import { logEvents } from "./events.ts";
import { assertLegal } from "./moves.ts";
import { type RawRow, rowReader } from "./rows.ts";
import { storableMessage } from "./text.ts";

const readMigration = rowReader(migrations);

/** Plans a move; null when the generation has one under way. */
export async function createMigration(db: Db, planned: NewMigration): Promise<MigrationRow | null> {
  const { migration_id, generation_id, model_id, owner, reason } = planned;
  const [row] = await db.execute<RawRow>(sql`
    with created as (
      insert into migrations (migration_id, generation_id, model_id, state, owner, from_worker_id, from_instance_id,
        to_worker_id, to_instance_id, reason)
      values (${migration_id}, ${generation_id}, ${model_id}, 'planned', ${owner}, ${planned.from_worker_id},
        ${planned.from_instance_id}, ${planned.to_worker_id}, ${planned.to_instance_id}, ${reason})
      on conflict do nothing
      returning *
    ), told as (
      select migration_id as entity_id, null as from_state, state as to_state, reason from created
    ), logged as (${logEvents("migration", sql`told`)})
    select * from created`);
  return row === undefined ? null : readMigration(row);
}

/** Throws, as a defect of the caller, for a step that no migration takes. Progress within a live state is none. */
export function assertStep({ from, to }: Pick<MigrationMove, "from" | "to">): void {
  const steps = from.filter((state) => state !== to || migrationMoves[to].length === 0);
  if (steps.length > 0 || from.length === 0)
    assertLegal<MigrationState>("migration", migrationMoves, steps, to);
}

/** A step, or progress within one. */
export async function moveMigration(db: Db, move: MigrationMove): Promise<boolean> {
  const { migration_id, to, error } = move;
  assertStep(move);
  const rows = await db.execute(sql`
    with before as (
      select migration_id, state from migrations
      where migration_id = ${migration_id} and state = any(${`{${move.from.join(",")}}`}::migration_state[])
      for update
    ), moved as (
      update migrations m set
        state = ${to}::migration_state,
        owner = coalesce(${move.owner ?? null}::text, m.owner),
        to_instance_id = coalesce(${move.to_instance_id ?? null}::text, m.to_instance_id),
        epoch = coalesce(${move.epoch ?? null}::integer, m.epoch),
        method = coalesce(${move.method ?? null}::migration_method, m.method),
        rounds = coalesce(${move.rounds ?? null}::integer, m.rounds),
        tokens = coalesce(${move.tokens ?? null}::integer, m.tokens),
        bytes = coalesce(${move.bytes ?? null}::bigint, m.bytes),
        timings_ms = coalesce(${move.timings_ms === undefined ? null : JSON.stringify(move.timings_ms)}::jsonb,
          m.timings_ms),
        error_code = coalesce(${error?.code ?? null}::text, m.error_code),
        error_message = coalesce(${error === undefined ? null : storableMessage(error.message)}::text,
          m.error_message),
        updated_at = now(),
        ended_at = case when ${to}::migration_state in ('finished', 'dropped', 'failed') then now() end
      from before b
      where m.migration_id = b.migration_id
      returning m.migration_id as entity_id, b.state as from_state, m.state as to_state, ${move.reason}::text as reason
    ), steps as (select * from moved where from_state <> to_state), logged as (${logEvents("migration", sql`steps`)})
    select entity_id from moved`);
  return rows.length > 0;
}

export async function listMigrations(
  db: Db,
  { live, generation_id, limit }: Parameters<StateStore["listMigrations"]>[0],
): Promise<MigrationRow[]> {
  return await db
    .select()
    .from(migrations)
    .where(
      and(
        live === true ? sql`state not in ('finished', 'dropped', 'failed')` : undefined,
        generation_id === undefined ? undefined : eq(migrations.generation_id, generation_id),
      ),
    )
    .orderBy(desc(migrations.created_at), desc(migrations.migration_id))
    .limit(limit);
}
