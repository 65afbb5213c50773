/**
 * Rows of generations, written many at a time: at hundreds of requests a second a statement for each would be the
 * database's whole work. Rows and their events are written together or not at all.
 */
import { eq, type SQL, sql } from "drizzle-orm";
import { type GenerationRow, generations } from "../../schema/db/tables.ts";
import { generationMoves } from "../../schema/vocab.ts";
import type { GenerationMove, NewGeneration } from "../ports.ts";
import type { Db } from "./database.ts";
import { logEvents } from "./events.ts";
import { assertLegal } from "./moves.ts";
import { storableMessage } from "./text.ts";

/** Queues generations; one that is there already stays as it is. */
export async function insertGenerations(db: Db, begun: readonly NewGeneration[]): Promise<void> {
  if (begun.length === 0) return;
  const rows = begun.map(({ generation_id, model_id, created_at_ms, owner, decisions }) => {
    const created_at = new Date(created_at_ms).toISOString();
    return sql`(${generation_id}::text, ${model_id}::text, 'queued'::generation_state,
      ${created_at}::timestamptz, ${owner ?? null}::text, ${json(decisions)}::json)`;
  });
  await db.execute(sql`
    with created as (
      insert into generations (generation_id, model_id, state, created_at, owner, decisions)
      values ${sql.join(rows, sql`, `)}
      on conflict do nothing
      returning generation_id as entity_id, null as from_state, state as to_state, 'arrived' as reason
    )
    ${logEvents("generation", sql`created`)}`);
}

/**
 * Moves each generation that is in one of the states its move starts `from`, with what the move carries; a generation
 * has one move at most. A move in the name of an epoch that is over is none. Returns the ids of those that moved.
 */
export async function moveGenerations(db: Db, moves: readonly GenerationMove[]): Promise<string[]> {
  if (moves.length === 0) return [];
  for (const { from, to } of moves) assertLegal("generation", generationMoves, from, to);
  const rows = await db.execute<{ entity_id: string }>(sql`
    with asked (generation_id, epoch, from_states, to_state, reason, worker_id, instance_id, cold_start, prompt_tokens,
      completion_tokens, finish_reason, error_code, error_message, timeline_ms, decisions) as (
      values ${sql.join(moves.map(asked), sql`, `)}
    ), before as (
      select g.generation_id, g.state from generations g join asked a using (generation_id)
      where g.state = any(a.from_states) and (a.epoch is null or g.epoch <= a.epoch)
      order by g.generation_id
      for update of g
    ), moved as (
      update generations g set
        state = a.to_state,
        epoch = coalesce(a.epoch, g.epoch),
        worker_id = coalesce(a.worker_id, g.worker_id),
        instance_id = coalesce(a.instance_id, g.instance_id),
        cold_start = coalesce(a.cold_start, g.cold_start),
        prompt_tokens = coalesce(a.prompt_tokens, g.prompt_tokens),
        completion_tokens = coalesce(a.completion_tokens, g.completion_tokens),
        finish_reason = coalesce(a.finish_reason, g.finish_reason),
        error_code = coalesce(a.error_code, g.error_code),
        error_message = coalesce(a.error_message, g.error_message),
        timeline_ms = coalesce(a.timeline_ms, g.timeline_ms),
        decisions = coalesce(a.decisions, g.decisions),
        finished_at = case when a.to_state in ('finished', 'cancelled', 'failed') then now() else g.finished_at end
      from asked a join before b using (generation_id)
      where g.generation_id = a.generation_id
      returning g.generation_id as entity_id, b.state as from_state, g.state as to_state, a.reason
    ), logged as (${logEvents("generation", sql`moved`)})
    select entity_id from moved`);
  return rows.map((row) => row.entity_id);
}

/** The row of values of one move; null where it says nothing. */
function asked(move: GenerationMove): SQL {
  const { error } = move;
  return sql`(${move.generation_id}::text, ${move.epoch ?? null}::integer, ${`{${move.from.join(",")}}`}::generation_state[],
    ${move.to}::generation_state, ${move.reason}::text, ${move.worker_id ?? null}::text,
    ${move.instance_id ?? null}::text, ${move.cold_start ?? null}::boolean, ${move.prompt_tokens ?? null}::integer,
    ${move.completion_tokens ?? null}::integer, ${move.finish_reason ?? null}::finish_reason,
    ${error?.code ?? null}::text, ${error === undefined ? null : storableMessage(error.message)}::text,
    ${json(move.timeline_ms)}::jsonb, ${json(move.decisions)}::json)`;
}

function json(value: unknown): string | null {
  return value === undefined ? null : JSON.stringify(value);
}

export async function getGeneration(db: Db, generation_id: string): Promise<GenerationRow | null> {
  const [row] = await db.select().from(generations).where(eq(generations.generation_id, generation_id));
  return row ?? null;
}
