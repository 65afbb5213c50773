/**
 * Instances and the memory they book. Memory is booked in the transaction that inserts an instance and freed in the
 * statement that ends it, so a device's `reserved_bytes` always equals the sum over its live instances.
 */
import { desc, eq, isNotNull, type SQL, sql } from "drizzle-orm";
import { type InstanceRow, instances, models, thisTransaction } from "../../schema/db/tables.ts";
import { instanceMoves } from "../../schema/vocab.ts";
import type { CreateInstanceResult, InstanceMove, NewInstance } from "../ports.ts";
import type { Db } from "./database.ts";
import { logEvents } from "./events.ts";
import { assertLegal } from "./moves.ts";
import { listOf, type RawRow, rowReader } from "./rows.ts";
import { storableMessage } from "./text.ts";

const readInstance = rowReader(instances);

/**
 * CTE that takes over why instances failed that somebody else had noted as failed already, from the CTEs `taken`
 * (worker_id) and `reported` (instance_id, state, error_code, error_message).
 */
export const explainFailures: SQL = sql`
  explained as (
    update instances i set error_code = r.error_code, error_message = r.error_message, changed_tx = ${thisTransaction}
    from taken t, reported r
    where i.instance_id = r.instance_id and i.worker_id = t.worker_id and i.state = 'failed' and r.state = 'failed'
      and r.error_message is not null and i.error_message is distinct from r.error_message
  )`;

/**
 * CTEs that end the instances of the CTE `ending` (instance_id, from_state, to_state, reason, error_code,
 * error_message; rows locked) and free their memory. A failed instance that becomes gone had freed its memory before.
 */
export const endInstances: SQL = sql`
  ended as (
    update instances i set
      state = e.to_state,
      ended_at = coalesce(i.ended_at, now()),
      error_code = coalesce(e.error_code, i.error_code),
      error_message = coalesce(e.error_message, i.error_message),
      changed_tx = ${thisTransaction}
    from ending e where i.instance_id = e.instance_id
    returning i.instance_id as entity_id, e.from_state, e.to_state, e.reason, i.worker_id, i.device_id, i.memory_bytes
  ), freed as (
    update devices d set reserved_bytes = d.reserved_bytes - f.memory_bytes
    from (
      select worker_id, device_id, sum(memory_bytes)::bigint as memory_bytes from ended
      where from_state not in ('gone', 'failed') group by worker_id, device_id
    ) f
    where d.worker_id = f.worker_id and d.device_id = f.device_id
  ), ended_log as (${logEvents("instance", sql`ended`)})`;

/**
 * Inserts an instance in state `loading` and books its memory. The lock on the model makes the starts of one model
 * follow each other: the count of live instances, taken by a later statement, sees every start before this one.
 */
export async function createInstance(db: Db, wanted: NewInstance): Promise<CreateInstanceResult> {
  return await db.transaction(async (tx) => {
    const [model] = await tx
      .select({ state: models.state, checkpoint: models.checkpoint })
      .from(models)
      .where(eq(models.model_id, wanted.model_id))
      .for("update");
    if (model?.state !== "active") return { ok: false, reason: "model_not_active" };
    if (model.checkpoint !== wanted.checkpoint) return { ok: false, reason: "conflict" };
    const [result] = await tx.execute<BookResult>(bookAndInsert(wanted));
    if (result === undefined) throw new Error("a select without from gave no row");
    if (result.instance !== null) return { ok: true, instance: readInstance(result.instance) };
    if (result.live_count > wanted.expected_live) return { ok: false, reason: "conflict" };
    return { ok: false, reason: result.worker_ready ? "no_memory" : "worker_not_ready" };
  });
}

type BookResult = { live_count: number; worker_ready: boolean; instance: RawRow | null };

/** The share lock keeps the worker's state and incarnation as they are until the instance is there. */
function bookAndInsert(wanted: NewInstance): SQL {
  return sql`
    with host as (
      select worker_id, incarnation from workers
      where worker_id = ${wanted.worker_id} and state = 'ready' for share
    ), live as (
      select count(*)::integer as live_count from instances
      where model_id = ${wanted.model_id} and state not in ('gone', 'failed')
    ), booked as (
      update devices d set reserved_bytes = d.reserved_bytes + ${wanted.memory_bytes}
      from host, live
      where d.worker_id = host.worker_id and d.device_id = ${wanted.device_id}
        and live.live_count <= ${wanted.expected_live}
        and d.memory_bytes - d.reserved_bytes >= ${wanted.memory_bytes}
      returning d.worker_id, d.device_id
    ), created as (
      insert into instances (instance_id, model_id, checkpoint, worker_id, incarnation, device_id, state,
        context_tokens, slots, kv_tokens, deterministic, adapter_bytes, memory_bytes)
      select ${wanted.instance_id}, ${wanted.model_id}, ${wanted.checkpoint}, host.worker_id, host.incarnation,
        booked.device_id, 'loading', ${wanted.context_tokens}, ${wanted.slots},
        ${wanted.kv_tokens ?? null}::integer, ${wanted.deterministic ?? false}::boolean,
        ${wanted.adapter_bytes ?? 0}, ${wanted.memory_bytes}
      from host, booked
      returning *
    ), logged as (${logEvents(
      "instance",
      sql`(select instance_id as entity_id, null as from_state, state as to_state, 'created' as reason from created) c`,
    )})
    select live_count, exists (select 1 from host) as worker_ready,
      (select to_json(created) from created) as instance
    from live`;
}

/**
 * Moves an instance if it is in one of the states `from`. Ending it frees its memory; a move that changes what it books
 * changes the device's books in the same statement, or fails where there is not enough.
 */
export async function moveInstance(db: Db, move: InstanceMove): Promise<boolean> {
  assertLegal("instance", instanceMoves, move.from, move.to);
  const locked = sql`from instances
    where instance_id = ${move.instance_id} and state in (${listOf(move.from)}) for update`;
  const rows = await db.execute(
    move.to === "gone" || move.to === "failed" ? endOne(move, locked) : moveLive(move, locked),
  );
  return rows.length > 0;
}

function endOne(move: InstanceMove, locked: SQL): SQL {
  const message = move.error === undefined ? null : storableMessage(move.error.message);
  return sql`
    with ending as (
      select instance_id, state as from_state, ${move.to}::instance_state as to_state, ${move.reason}::text as reason,
        ${move.error?.code ?? null}::text as error_code, ${message}::text as error_message
      ${locked}
    ), ${endInstances}
    select entity_id from ended`;
}

function moveLive(move: InstanceMove, locked: SQL): SQL {
  const readyAt =
    move.to === "ready"
      ? sql`, ready_at = case when b.state in ('loading', 'parked') then now() else i.ready_at end`
      : sql``;
  const bytes = move.memory_bytes === undefined ? sql`b.memory_bytes` : sql`${move.memory_bytes}::bigint`;
  return sql`
    with before as (select instance_id, state, worker_id, device_id, memory_bytes ${locked}), rebooked as (
      update devices d set reserved_bytes = d.reserved_bytes + ${bytes} - b.memory_bytes
      from before b
      where d.worker_id = b.worker_id and d.device_id = b.device_id and ${bytes} <> b.memory_bytes
        and (${bytes} < b.memory_bytes or d.memory_bytes - d.reserved_bytes >= ${bytes} - b.memory_bytes)
      returning b.instance_id
    ), moved as (
      update instances i set state = ${move.to}, memory_bytes = ${bytes}, changed_tx = ${thisTransaction}${readyAt}
      from before b
      where i.instance_id = b.instance_id
        and (${bytes} = b.memory_bytes or b.instance_id in (select instance_id from rebooked))
      returning i.instance_id as entity_id, b.state as from_state, i.state as to_state, ${move.reason}::text as reason
    ), logged as (${logEvents("instance", sql`moved`)})
    select entity_id from moved`;
}

/** Notes a use; the time never goes back. No change of state, so no event. */
export async function touchInstance(db: Db, instance_id: string, idle_ms: number): Promise<void> {
  await db.execute(sql`
    update instances set changed_tx = ${thisTransaction},
      last_used_at = greatest(last_used_at, now() - make_interval(secs => ${idle_ms / 1000}))
    where instance_id = ${instance_id}`);
}

/** The last ended first. */
export async function endedInstances(db: Db, limit: number): Promise<InstanceRow[]> {
  return await db
    .select()
    .from(instances)
    .where(isNotNull(instances.ended_at))
    .orderBy(desc(instances.ended_at))
    .limit(limit);
}
