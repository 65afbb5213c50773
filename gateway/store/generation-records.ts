/** What is kept of requests that may be read again: records, output in batches, keys, and who owns the generation. */
import { and, asc, eq, sql } from "drizzle-orm";
import {
  type GenerationRow,
  generation_records,
  generations,
  idempotency_keys,
  token_log,
} from "../../schema/db/tables.ts";
import type { BeginResult, EpochClaim, NewResumable, StoredGeneration, TokenBatch } from "../ports.ts";
import type { Db } from "./database.ts";
import { logEvents } from "./events.ts";
import { type RawRow, rowReader } from "./rows.ts";

const readGeneration = rowReader(generations);

/** Row, record and key in one statement; nothing of them when the key is taken. */
export async function beginGeneration(db: Db, request: NewResumable): Promise<BeginResult> {
  const { generation_id, model_id, owner, tenant, resume_ms, settings, idempotency } = request;
  const created_at = new Date(request.created_at_ms).toISOString();
  const key = idempotency?.key ?? null;
  return await db.transaction(async (tx) => {
    await tx.execute(sql`
      with created as (
        insert into generations (generation_id, model_id, state, created_at, owner)
        values (${generation_id}, ${model_id}, 'queued', ${created_at}::timestamptz, ${owner})
        on conflict do nothing
        returning generation_id as entity_id, null as from_state, state as to_state, 'arrived' as reason
      ), recorded as (
        insert into generation_records (generation_id, tenant, resume_ms, settings)
        select entity_id, ${tenant}, ${resume_ms}::integer, ${JSON.stringify(settings)}::json from created
      )
      ${logEvents("generation", sql`created`)}`);
    if (key === null || idempotency === null) return { begun: true };
    const { body_digest } = idempotency;
    const taken = await tx
      .insert(idempotency_keys)
      .values({ tenant, key, body_digest, generation_id })
      .onConflictDoNothing()
      .returning({ generation_id: idempotency_keys.generation_id });
    if (taken.length > 0) return { begun: true };
    // Somebody was faster: this generation never was.
    await tx.execute(sql`delete from events where entity = 'generation' and entity_id = ${generation_id}`);
    await tx.delete(generations).where(eq(generations.generation_id, generation_id));
    const first = await findKey(tx, tenant, key);
    if (first === null) throw new Error("a key that was taken is gone");
    return { begun: false, ...first };
  });
}

/** The compare-and-swap of a generation's owner. */
export async function claimGeneration(
  db: Db,
  { generation_id, model_id, created_at_ms, seen_epoch, epoch, owner, at }: EpochClaim,
): Promise<{ won: boolean; row: GenerationRow }> {
  const created_at = new Date(created_at_ms).toISOString();
  const [won] = await db.execute<RawRow>(sql`
    insert into generations as g (generation_id, model_id, state, created_at, owner, epoch, worker_id, instance_id)
    values (${generation_id}, ${model_id}, 'running', ${created_at}::timestamptz, ${owner}, ${epoch},
      ${at?.worker_id ?? null}, ${at?.instance_id ?? null})
    on conflict (generation_id) do update set epoch = excluded.epoch, owner = excluded.owner,
      worker_id = coalesce(excluded.worker_id, g.worker_id),
      instance_id = coalesce(excluded.instance_id, g.instance_id)
      where g.epoch = ${seen_epoch} and g.finished_at is null
    returning *`);
  if (won !== undefined) return { won: true, row: readGeneration(won) };
  const [row] = await db.select().from(generations).where(eq(generations.generation_id, generation_id));
  if (row === undefined) throw new Error(`generation ${generation_id} was removed while it was claimed`);
  return { won: false, row };
}

/** One statement for all batches; a batch of an epoch that is over writes nothing. */
export async function appendTokens(db: Db, batches: readonly TokenBatch[]): Promise<string[]> {
  if (batches.length === 0) return [];
  const rows = batches.map(({ generation_id, epoch, worker_id, instance_id, hops, prompt, events, done }) => {
    const first_index = events[0]?.first_index ?? null;
    const last = events.at(-1);
    const next_index = last === undefined ? null : last.first_index + last.tokens.length;
    return sql`(${generation_id}::text, ${epoch}::integer, ${worker_id}::text, ${instance_id}::text,
      ${JSON.stringify(hops)}::json, ${prompt === null ? null : JSON.stringify(prompt)}::json,
      ${first_index}::integer, ${next_index}::integer, ${JSON.stringify(events)}::json,
      ${done === null ? null : JSON.stringify(done)}::json)`;
  });
  const written = await db.execute<{ generation_id: string }>(sql`
    with told (generation_id, epoch, worker_id, instance_id, hops, prompt, first_index, next_index, events, done) as (
      values ${sql.join(rows, sql`, `)}
    ), owned as (
      update generations g set
        worker_id = t.worker_id, instance_id = t.instance_id,
        state = case when g.state = 'queued' then 'running'::generation_state else g.state end
      from told t
      where g.generation_id = t.generation_id and g.epoch = t.epoch and g.finished_at is null
      returning g.generation_id
    ), noted as (
      update generation_records r set
        hops = t.hops, prompt = coalesce(t.prompt, r.prompt), done = coalesce(t.done, r.done)
      from told t join owned using (generation_id)
      where r.generation_id = t.generation_id
    ), logged as (
      insert into token_log (generation_id, first_index, next_index, events)
      select t.generation_id, t.first_index, t.next_index, t.events
      from told t join owned using (generation_id)
      where t.first_index is not null
      on conflict do nothing
    )
    select generation_id from owned`);
  return written.map((row) => row.generation_id);
}

export async function getStored(db: Db, generation_id: string): Promise<StoredGeneration | null> {
  const [found] = await db
    .select({ row: generations, record: generation_records })
    .from(generations)
    .innerJoin(generation_records, eq(generation_records.generation_id, generations.generation_id))
    .where(eq(generations.generation_id, generation_id));
  if (found === undefined) return null;
  const batches = await db
    .select({ events: token_log.events })
    .from(token_log)
    .where(eq(token_log.generation_id, generation_id))
    .orderBy(asc(token_log.first_index));
  return { ...found, events: batches.flatMap(({ events }) => events) };
}

export async function findKey(
  db: Db,
  tenant: string,
  key: string,
): Promise<{ generation_id: string; body_digest: string } | null> {
  const [found] = await db
    .select({
      generation_id: idempotency_keys.generation_id,
      body_digest: idempotency_keys.body_digest,
    })
    .from(idempotency_keys)
    .where(and(eq(idempotency_keys.tenant, tenant), eq(idempotency_keys.key, key)));
  return found ?? null;
}

/** Generations whose gateway may have died with them, the oldest first. */
export async function unfinishedOfOthers(db: Db, alive: readonly string[], limit: number) {
  return await db
    .select({
      row: generations,
      record: { tenant: generation_records.tenant, resume_ms: generation_records.resume_ms },
    })
    .from(generations)
    .leftJoin(generation_records, eq(generation_records.generation_id, generations.generation_id))
    .where(
      sql`${generations.finished_at} is null and ${generations.owner} is not null
        and not (${generations.owner} = any(${`{${alive.join(",")}}`}::text[]))`,
    )
    .orderBy(asc(generations.created_at))
    .limit(limit);
}
