/** Moves of streams: asked for and shown; workers that let all of theirs go. */
import { Hono } from "hono";
import {
  type AdminMigration,
  type DrainedWorker,
  migrationsQuery,
  moveGenerationRequest,
} from "../../../schema/api/migrations.ts";
import type { MigrationRow } from "../../../schema/db/tables.ts";
import { parseOrThrow, SllmError } from "../../../schema/error.ts";
import { generationId, workerId } from "../../../schema/ids.ts";
import { limits } from "../../../schema/limits.ts";
import type { Migrations } from "../../control/moves/migrations.ts";
import type { Fleet } from "../../placement/fleet.ts";
import type { Log, StateStore, WorkerClient } from "../../ports.ts";
import type { AppEnv } from "../context.ts";
import { readBody } from "../read-json.ts";

export interface MigrationRouteDeps {
  readonly fleet: Fleet;
  readonly store: Pick<StateStore, "listMigrations">;
  readonly workers: Pick<WorkerClient, "drain">;
  readonly migrations: Pick<Migrations, "moveStream">;
  readonly log: Log;
}

export function migrationRoutes({
  fleet,
  store,
  workers,
  migrations,
  log,
}: MigrationRouteDeps): Hono<AppEnv> {
  return new Hono<AppEnv>()
    .post("/generations/:id/move", async (c) => {
      const id = parseOrThrow(generationId, c.req.param("id"), "id");
      const { worker_id, method = null } = await readBody(c, moveGenerationRequest, limits.body_bytes);
      const row = await migrations.moveStream(id, { to: worker_id ?? null, method }, "asked for");
      return c.json(toAdminMigration(row), 202);
    })
    .get("/migrations", async (c) => {
      const { generation_id, live, limit } = parseOrThrow(migrationsQuery, c.req.query(), "query");
      const rows = await store.listMigrations({
        ...(generation_id === undefined ? {} : { generation_id }),
        ...(live === undefined ? {} : { live: true }),
        limit,
      });
      return c.json({ data: rows.map(toAdminMigration) });
    })
    .post("/workers/:id/drain", async (c) => {
      const id = parseOrThrow(workerId, c.req.param("id"), "id");
      await fleet.known();
      const row = fleet.worker(id);
      if (row === null || row.state === "lost" || row.state === "gone") {
        throw new SllmError("not_found", `The worker '${id}' is not connected.`);
      }
      const { worker_id, url, incarnation } = row;
      const generations = await workers.drain({ worker_id, url, incarnation });
      log.info("worker_drains", { worker_id, generations });
      return c.json({ worker_id, generations } satisfies DrainedWorker, 202);
    });
}

function toAdminMigration(row: MigrationRow): AdminMigration {
  const {
    owner: _,
    epoch: __,
    error_code,
    error_message,
    created_at,
    updated_at: ___,
    ended_at,
    ...rest
  } = row;
  return {
    ...rest,
    error: error_code === null ? null : { code: error_code, message: error_message ?? "" },
    created_at: created_at.toISOString(),
    ended_at: ended_at?.toISOString() ?? null,
  };
}
