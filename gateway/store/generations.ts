/** Rows of generations. One statement each: the row and its event are written together or not at all. */
import { eq, type SQL, sql } from "drizzle-orm";
import { type GenerationRow, generations } from "../../schema/db/tables.ts";
import { type GenerationState, generationMoves } from "../../schema/vocab.ts";
import type { GenerationMove, NewGeneration } from "../ports.ts";
import type { Db } from "./database.ts";
import { logEvents } from "./events.ts";
import { assertLegal } from "./moves.ts";
import { listOf } from "./rows.ts";
import { storableMessage } from "./text.ts";

const finished: ReadonlySet<GenerationState> = new Set(["finished", "cancelled", "failed"]);

/** Queues a generation; one that is there already stays as it is. */
export async function insertGeneration(db: Db, generation: NewGeneration): Promise<void> {
  const created_at = new Date(generation.created_at_ms).toISOString();
  const decisions = generation.decisions === undefined ? null : JSON.stringify(generation.decisions);
  await db.execute(sql`
    with created as (
      insert into generations (generation_id, model_id, state, created_at, decisions)
      values (${generation.generation_id}, ${generation.model_id}, 'queued', ${created_at}, ${decisions}::json)
      on conflict do nothing
      returning generation_id as entity_id, null as from_state, state as to_state, 'arrived' as reason
    )
    ${logEvents("generation", sql`created`)}`);
}

/** Moves a generation if it is in one of the states `from`; what the move carries is written with it. */
export async function moveGeneration(db: Db, move: GenerationMove): Promise<boolean> {
  assertLegal("generation", generationMoves, move.from, move.to);
  const rows = await db.execute(sql`
    with before as (
      select generation_id, state from generations
      where generation_id = ${move.generation_id} and state in (${listOf(move.from)})
      for update
    ), moved as (
      update generations g set ${assignments(move)}
      from before b where g.generation_id = b.generation_id
      returning g.generation_id as entity_id, b.state as from_state, g.state as to_state, ${move.reason}::text as reason
    ), logged as (${logEvents("generation", sql`moved`)})
    select entity_id from moved`);
  return rows.length > 0;
}

function assignments(move: GenerationMove): SQL {
  const values: Record<string, string | number | boolean | undefined> = {
    state: move.to,
    worker_id: move.worker_id,
    instance_id: move.instance_id,
    cold_start: move.cold_start,
    prompt_tokens: move.prompt_tokens,
    completion_tokens: move.completion_tokens,
    finish_reason: move.finish_reason,
    error_code: move.error?.code,
    error_message: move.error && storableMessage(move.error.message),
    timeline_ms: move.timeline_ms && JSON.stringify(move.timeline_ms),
    decisions: move.decisions && JSON.stringify(move.decisions),
  };
  const list: SQL[] = [];
  for (const [name, value] of Object.entries(values)) {
    if (value !== undefined) list.push(sql`${sql.identifier(name)} = ${value}`);
  }
  if (finished.has(move.to)) list.push(sql`finished_at = now()`);
  return sql.join(list, sql`, `);
}

export async function getGeneration(db: Db, generation_id: string): Promise<GenerationRow | null> {
  const [row] = await db.select().from(generations).where(eq(generations.generation_id, generation_id));
  return row ?? null;
}
