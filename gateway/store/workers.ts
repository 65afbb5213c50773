/** Workers come, report, fall silent. Their reports are merged into the shared truth in sets, not row by row. */
import { eq, sql } from "drizzle-orm";
import type {
  HeartbeatRequest,
  HeartbeatResponse,
  InstanceReport,
  RegisterRequest,
} from "../../schema/cluster/membership.ts";
import { events, thisTransaction, workers } from "../../schema/db/tables.ts";
import { SllmError } from "../../schema/error.ts";
import type { WorkerId } from "../../schema/ids.ts";
import { workerMoves } from "../../schema/vocab.ts";
import type { LastReport } from "../ports.ts";
import type { Db } from "./database.ts";
import { logEvents } from "./events.ts";
import { endInstances, explainFailures } from "./instances.ts";
import { statesBefore } from "./moves.ts";
import { mergePlacements, reportedCheckpoints } from "./placements.ts";
import { listOf } from "./rows.ts";
import { storableMessage, storableProblems } from "./text.ts";

type Transaction = Parameters<Parameters<Db["transaction"]>[0]>[0];

/**
 * Takes a worker in. Its row is locked first; the statements after it see every instance that was created before,
 * since `createInstance` holds a share lock on that row.
 */
export async function registerWorker(db: Db, report: RegisterRequest): Promise<void> {
  await db.transaction(async (tx) => {
    await writeWorker(tx, report);
    await tx.execute(sql`
      with host as (
        select worker_id from workers where worker_id = ${report.worker_id}
      ), ending as (
        select instance_id, state as from_state, 'gone'::instance_state as to_state, 'worker_restarted' as reason,
          null::text as error_code, null::text as error_message
        from instances
        where worker_id = ${report.worker_id} and incarnation <> ${report.incarnation}
          and state not in ('gone', 'failed')
        order by instance_id for update
      ), ${endInstances}, ${mergePlacements(sql`host`, report.placements)}
      select 1`);
    await writeDevices(tx, report);
  });
}

async function writeWorker(tx: Transaction, report: RegisterRequest): Promise<void> {
  const { worker_id, incarnation, state, url, version, links } = report;
  const problems = storableProblems(report.problems);
  const known = { incarnation, state, url, version, links, problems };
  const written = {
    last_heartbeat_at: sql`now()`,
    changed_tx: thisTransaction,
    holdings_tx: thisTransaction,
  };
  const fields = { ...known, heartbeat_sequence: -1, ...written };
  const event = { entity: "worker", entity_id: worker_id, to_state: state, reason: "registered" } as const;
  const [added] = await tx
    .insert(workers)
    .values({ worker_id, ...fields })
    .onConflictDoNothing()
    .returning({ worker_id: workers.worker_id });
  if (added !== undefined) {
    await tx.insert(events).values(event);
    return;
  }
  const isWorker = eq(workers.worker_id, worker_id);
  const seen = { state: workers.state, incarnation: workers.incarnation };
  const [before] = await tx.select(seen).from(workers).where(isWorker).for("update");
  if (before === undefined) throw new Error("workers are never removed");
  if (report.again === true && before.incarnation !== incarnation) {
    throw new SllmError("stale_epoch", `Another process has taken the place of worker ${worker_id}.`);
  }
  if (!statesBefore(workerMoves, state).includes(before.state)) {
    throw new SllmError("state_conflict", `A worker cannot register as '${state}'.`, { param: "state" });
  }
  await tx.update(workers).set(fields).where(isWorker);
  if (before.state !== state) await tx.insert(events).values({ ...event, from_state: before.state });
}

/**
 * Devices follow the report; what is reserved is counted anew. A process never shrinks its devices, so the greater
 * value only guards the check of the table against a worker that breaks this rule.
 */
async function writeDevices(tx: Transaction, report: RegisterRequest): Promise<void> {
  await tx.execute(sql`
    with live as (
      select device_id, memory_bytes from instances
      where worker_id = ${report.worker_id} and state not in ('gone', 'failed')
      order by instance_id for update
    ), reserved as (
      select device_id, sum(memory_bytes)::bigint as reserved_bytes from live group by device_id
    ), reported as (
      select distinct on (r.device_id) r.device_id, r.kind, r.memory_bytes, r.repacks,
        coalesce(reserved.reserved_bytes, 0) as reserved_bytes
      from jsonb_to_recordset(${JSON.stringify(report.devices)}::jsonb)
        as r(device_id text, kind device_kind, memory_bytes bigint, repacks boolean)
        left join reserved using (device_id)
    ), removed as (
      delete from devices d where d.worker_id = ${report.worker_id}
        and not exists (select 1 from reported r where r.device_id = d.device_id)
    )
    insert into devices (worker_id, device_id, kind, memory_bytes, reserved_bytes, repacks)
    select ${report.worker_id}, device_id, kind, greatest(memory_bytes, reserved_bytes), reserved_bytes,
      coalesce(repacks, false)
    from reported
    on conflict (worker_id, device_id) do update set
      kind = excluded.kind, memory_bytes = excluded.memory_bytes, reserved_bytes = excluded.reserved_bytes,
      repacks = excluded.repacks`);
}

type HeartbeatResult = { known: boolean; release: string[]; deployed: string[] };

/**
 * Takes a heartbeat in by one statement. Late ones (by their sequence) and those of another incarnation change
 * nothing. Why an instance failed its worker knows best, also after somebody else has noted the failure. A state that cannot follow the known one makes the worker register again.
 */
export async function heartbeat(db: Db, report: HeartbeatRequest): Promise<HeartbeatResponse> {
  const [result] = await db.execute<HeartbeatResult>(sql`
    with before as (
      select worker_id, state, heartbeat_sequence from workers
      where worker_id = ${report.worker_id} and incarnation = ${report.incarnation}
        and state in (${listOf(statesBefore(workerMoves, report.state))})
      for update
    ), news as (
      select worker_id, state from before where heartbeat_sequence < ${report.sequence}
    ), ${mergePlacements(sql`news`, report.placements)}, taken as (
      update workers w set state = ${report.state}, heartbeat_sequence = ${report.sequence}, last_heartbeat_at = now(),
        links = ${JSON.stringify(report.links)}::json,
        problems = ${JSON.stringify(storableProblems(report.problems))}::json,
        changed_tx = ${thisTransaction},
        holdings_tx = case
          when exists (select 1 from changed_placements) or exists (select 1 from removed_placements)
          then ${thisTransaction} else w.holdings_tx
        end
      from news n
      where w.worker_id = n.worker_id
      returning w.worker_id, n.state as from_state, w.state as to_state
    ), workers_log as (${logEvents(
      "worker",
      sql`(
        select worker_id as entity_id, from_state, to_state, 'reported' as reason from taken
        where from_state <> to_state
      ) c`,
    )}), reported as (
      select r.* from taken, jsonb_to_recordset(${JSON.stringify(report.instances.map(toReportedRow))}::jsonb)
        as r(instance_id text, state instance_state, fingerprint text, error_code text, error_message text)
    ), named as (
      update instances i set fingerprint = r.fingerprint, changed_tx = ${thisTransaction}
      from taken t, reported r
      where i.instance_id = r.instance_id and i.worker_id = t.worker_id and i.fingerprint is distinct from r.fingerprint
        and t.to_state <> 'gone' and r.state not in ('gone', 'failed')
    ), ${explainFailures}, ending as (
      select i.instance_id, i.state as from_state,
        case when r.state = 'failed' then r.state else 'gone' end as to_state,
        case when r.state in ('gone', 'failed') then 'reported' else 'worker_gone' end as reason,
        r.error_code, r.error_message
      from taken t join instances i using (worker_id) left join reported r using (instance_id)
      where i.state not in ('gone', 'failed') and (r.state in ('gone', 'failed') or t.to_state = 'gone')
      order by i.instance_id for update of i
    ), ${endInstances}
    select exists (select 1 from before) as known, (
      select coalesce(json_agg(distinct r.instance_id), '[]') from reported r
      where r.instance_id in (select entity_id from ended) or not exists (
        select 1 from instances i
        where i.instance_id = r.instance_id and i.worker_id = ${report.worker_id} and i.state not in ('gone', 'failed')
      )
    ) as release, (
      select coalesce(json_agg(distinct m.checkpoint), '[]')
      from before b, (select checkpoint from models union select checkpoint from adapters) m
      where m.checkpoint in (select checkpoint from ${reportedCheckpoints(report.placements)})
    ) as deployed`);
  if (result === undefined) throw new Error("a select without from gave no row");
  return result;
}

function toReportedRow({ instance_id, state, fingerprint, error }: InstanceReport) {
  return {
    instance_id,
    state,
    fingerprint: fingerprint ?? null,
    error_code: error?.code ?? null,
    error_message: error === null ? null : storableMessage(error.message),
  };
}

/**
 * Marks workers lost that have not reported since they were last seen, and fails their instances and those found on
 * workers that were lost or gone before (one may have been created while its worker expired). Knows no time: who calls
 * has watched long enough. Safe to run from every gateway at once.
 */
export async function expireWorkers(db: Db, silent: readonly LastReport[]): Promise<WorkerId[]> {
  const rows = await db.execute<{ worker_id: WorkerId }>(sql`
    with silent as (
      select w.worker_id, w.state
      from jsonb_to_recordset(${JSON.stringify(silent.map(toSilentRow))}::jsonb)
        as s(worker_id text, incarnation text, heartbeat_sequence bigint)
        join workers w using (worker_id, incarnation, heartbeat_sequence)
      where w.state in ('ready', 'draining')
      order by w.worker_id for update of w
    ), lost as (
      update workers w set state = 'lost', changed_tx = ${thisTransaction}
      from silent s where w.worker_id = s.worker_id
      returning w.worker_id as entity_id, s.state as from_state, w.state as to_state, 'lease_expired' as reason
    ), workers_log as (${logEvents("worker", sql`lost`)}), ending as (
      select instance_id, state as from_state, 'failed'::instance_state as to_state, 'worker_lost' as reason,
        'worker_unavailable' as error_code, 'The worker stopped reporting.' as error_message
      from instances
      where state not in ('gone', 'failed') and worker_id in (
        select entity_id from lost union all select worker_id from workers where state in ('lost', 'gone')
      )
      order by instance_id for update
    ), ${endInstances}
    select entity_id as worker_id from lost order by worker_id`);
  return rows.map((row) => row.worker_id);
}

/** The row of a worker also carries what it held; only what is compared need travel. */
function toSilentRow({ worker_id, incarnation, heartbeat_sequence }: LastReport): LastReport {
  return { worker_id, incarnation, heartbeat_sequence };
}
