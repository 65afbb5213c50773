/**
 * The cluster as one statement sees it: all tables in one round trip, from one moment; or of that what changed since an
 * earlier read.
 *
 * Rows say which transaction wrote them. A read ends with the oldest transaction that was still under way (`xmin` of its
 * snapshot): everything older was visible to it, so the next read wants rows from that one on. It may see a row twice,
 * it never misses one, and no writer waits for a common counter.
 */
import { type SQL, sql } from "drizzle-orm";
import { adapters, devices, instances, leases, models, placements, workers } from "../../schema/db/tables.ts";
import type { WorkerId } from "../../schema/ids.ts";
import type { ClusterChanges, ClusterSnapshot, ReadMark } from "../ports.ts";
import type { Db } from "./database.ts";
import { type RawRow, rowReader } from "./rows.ts";

const readWorker = rowReader(workers);
const readDevice = rowReader(devices);
const readPlacement = rowReader(placements);
const readInstance = rowReader(instances);
const readModel = rowReader(models);
const readLease = rowReader(leases);
const readAdapter = rowReader(adapters);

type Table = keyof ClusterSnapshot | "leases";
type Result = { readonly [table in Table]: readonly RawRow[] } & {
  readonly mark: string;
  readonly read_at: string;
  readonly holders: readonly WorkerId[];
};

/** Rows come in the order of their keys, instances in the order of their creation. Ended instances are left out. */
export async function snapshot(db: Db): Promise<ClusterSnapshot> {
  const { workers, devices, placements, instances, models, adapters } = await changes(db, null);
  return { workers, devices, placements, instances, models, adapters };
}

/** In the same orders. A mark from the future, which only another database can have given, counts as none. */
export async function changes(db: Db, since: ReadMark | null): Promise<ClusterChanges> {
  const [result] = await db.execute<Result>(select(since));
  if (result === undefined) throw new Error("a select without from gave no row");
  const mark = Number(result.mark);
  if (since !== null && mark < since) return await changes(db, null);
  return {
    mark,
    isWhole: since === null,
    read_at: new Date(result.read_at),
    workers: result.workers.map(readWorker),
    holders: result.holders,
    devices: result.devices.map(readDevice),
    placements: result.placements.map(readPlacement),
    instances: result.instances.map(readInstance),
    models: result.models.map(readModel),
    adapters: result.adapters.map(readAdapter),
    leases: result.leases.map(readLease),
  };
}

function select(since: ReadMark | null): SQL {
  const everything = sql`true`;
  const changed = since === null ? everything : sql`t.changed_tx >= ${since}`;
  const held = since === null ? everything : sql`w.holdings_tx >= ${since}`;
  // Everything that ever ended is not wanted; what ended since the mark is.
  const instance = since === null ? sql`t.state not in ('gone', 'failed')` : changed;
  return sql`
    with holders as materialized (select w.worker_id from workers w where ${held})
    select
      pg_snapshot_xmin(pg_current_snapshot())::text as mark,
      to_json(clock_timestamp()) as read_at,
      (select coalesce(json_agg(worker_id), '[]') from holders) as holders,
      (select coalesce(json_agg(t order by t.worker_id), '[]') from workers t where ${changed}) as workers,
      (select coalesce(json_agg(t order by t.worker_id, t.device_id), '[]')
        from devices t join holders using (worker_id)) as devices,
      (select coalesce(json_agg(t order by t.worker_id, t.checkpoint, t.tier), '[]')
        from placements t join holders using (worker_id)) as placements,
      (select coalesce(json_agg(t order by t.created_at, t.instance_id), '[]') from instances t where ${instance})
        as instances,
      (select coalesce(json_agg(t order by t.model_id), '[]') from models t where ${changed}) as models,
      (select coalesce(json_agg(a order by a.model_id, a.name), '[]')
        from adapters a join models t using (model_id) where ${changed}) as adapters,
      (select coalesce(json_agg(t order by t.name), '[]') from leases t) as leases`;
}
