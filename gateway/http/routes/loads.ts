/** GET /admin/v1/loads: the traces of the last loads, asked of all workers at once. */
import { Hono } from "hono";
import type { AdminLoad, AdminLoadList } from "../../../schema/api/admin.ts";
import { loadsQuery } from "../../../schema/cluster/loads.ts";
import { parseOrThrow, SllmError } from "../../../schema/error.ts";
import type { WorkerId } from "../../../schema/ids.ts";
import type { Fleet } from "../../placement/fleet.ts";
import type { WorkerClient } from "../../ports.ts";
import type { AppEnv } from "../context.ts";

export interface LoadViewsDeps {
  readonly fleet: Fleet;
  readonly workers: Pick<WorkerClient, "loadTraces">;
}

/** A worker that does not answer is named, and costs its own loads only. */
export function loadViews({ fleet, workers }: LoadViewsDeps): Hono<AppEnv> {
  return new Hono<AppEnv>().get("/loads", async (c) => {
    await fleet.known();
    const query = parseOrThrow(loadsQuery, c.req.query(), "query");
    const asked = fleet.snapshot.workers.filter((w) => w.state === "ready" || w.state === "draining");
    const loads: AdminLoad[] = [];
    const silent: WorkerId[] = [];
    const ask = async ({ worker_id, url, incarnation }: (typeof asked)[number]) => {
      try {
        const traces = await workers.loadTraces({ worker_id, url, incarnation }, query);
        loads.push(...traces.map((trace) => ({ worker_id, ...trace })));
      } catch (error) {
        if (!(error instanceof SllmError)) throw error;
        silent.push(worker_id);
      }
    };
    await Promise.all(asked.map(ask));
    loads.sort((a, b) => Date.parse(b.started_at) - Date.parse(a.started_at));
    const data = loads.slice(0, query.limit);
    return c.json({ data, silent: silent.sort() } satisfies AdminLoadList);
  });
}
