/** The cluster as one statement sees it: five tables in one round trip, from one moment. */
import { sql } from "drizzle-orm";
import { devices, instances, models, placements, workers } from "../../schema/db/tables.ts";
import type { ClusterSnapshot } from "../ports.ts";
import type { Db } from "./database.ts";
import { type RawRow, rowReader } from "./rows.ts";

const readWorker = rowReader(workers);
const readDevice = rowReader(devices);
const readPlacement = rowReader(placements);
const readInstance = rowReader(instances);
const readModel = rowReader(models);

type Tables = { readonly [table in keyof ClusterSnapshot]: readonly RawRow[] };

/** Rows come in the order of their keys, instances in the order of their creation. Ended instances are left out. */
export async function snapshot(db: Db): Promise<ClusterSnapshot> {
  const [tables] = await db.execute<Tables>(sql`
    select
      (select coalesce(json_agg(t order by t.worker_id), '[]') from workers t) as workers,
      (select coalesce(json_agg(t order by t.worker_id, t.device_id), '[]') from devices t) as devices,
      (select coalesce(json_agg(t order by t.worker_id, t.checkpoint, t.tier), '[]') from placements t) as placements,
      (select coalesce(json_agg(t order by t.created_at, t.instance_id), '[]')
        from instances t where t.state not in ('gone', 'failed')) as instances,
      (select coalesce(json_agg(t order by t.model_id), '[]') from models t) as models`);
  if (tables === undefined) throw new Error("a select without from gave no row");
  return {
    workers: tables.workers.map(readWorker),
    devices: tables.devices.map(readDevice),
    placements: tables.placements.map(readPlacement),
    instances: tables.instances.map(readInstance),
    models: tables.models.map(readModel),
  };
}
