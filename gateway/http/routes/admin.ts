/** The admin API under /admin/v1: deploy, list and delete models, give them adapters; see workers, instances and generations. */
import { Hono } from "hono";
import { deployRequest, instancesQuery, type ModelSettings } from "../../../schema/api/admin.ts";
import { parseOrThrow, SllmError } from "../../../schema/error.ts";
import { generationId } from "../../../schema/ids.ts";
import { limits } from "../../../schema/limits.ts";
import type { WaitQueue } from "../../admission/wait-queue.ts";
import type { Migrations } from "../../control/moves/migrations.ts";
import type { Explanations } from "../../dispatch/explanations.ts";
import type { Fleet } from "../../placement/fleet.ts";
import type { WorkerReports } from "../../placement/worker-reports.ts";
import type { Clock, Log, StateStore, WorkerClient } from "../../ports.ts";
import {
  toAdminEstimate,
  toAdminGeneration,
  toAdminInstance,
  toAdminWorker,
  toDeployedModel,
} from "../admin-views.ts";
import { checkFits } from "../check-fits.ts";
import { checkManifestDigest } from "../check-manifest.ts";
import type { AppEnv } from "../context.ts";
import { toExplainedRequest } from "../explain-view.ts";
import { readBody } from "../read-json.ts";
import { adapterRoutes } from "./adapters.ts";
import { loadViews } from "./loads.ts";
import { migrationRoutes } from "./migrations.ts";
import { queueRoutes } from "./queue.ts";

export interface AdminDeps {
  readonly store: Pick<
    StateStore,
    | "deployModel"
    | "deleteModel"
    | "getModel"
    | "listModels"
    | "addAdapter"
    | "removeAdapter"
    | "getGeneration"
    | "endedInstances"
    | "estimates"
    | "listMigrations"
  >;
  readonly fleet: Fleet;
  readonly reports: WorkerReports;
  readonly workers: Pick<WorkerClient, "loadTraces" | "drain">;
  readonly migrations: Pick<Migrations, "moveStream">;
  readonly queue: WaitQueue;
  readonly explanations: Explanations;
  readonly clock: Clock;
  readonly log: Log;
  /** For models that do not set their own. */
  readonly keep_alive_ms: number;
}

/** Context of models that do not say what they want: enough for a chat, cheap in memory. */
const defaultContext_tokens = 4096;

export function adminRoutes(deps: AdminDeps): Hono<AppEnv> {
  return new Hono<AppEnv>()
    .route("/admin/v1/models", modelRoutes(deps))
    .route("/admin/v1/adapters", adapterRoutes(deps))
    .route("/admin/v1", clusterViews(deps))
    .route("/admin/v1", loadViews(deps))
    .route("/admin/v1", queueRoutes(deps))
    .route("/admin/v1", migrationRoutes(deps));
}

/** Throws `invalid_request` for a KV cache that no engine makes. */
function checkKvSettings({ kv_tokens, slots, deterministic }: ModelSettings, context_tokens: number): void {
  if (kv_tokens === undefined) return;
  const refuse = (text: string) => new SllmError("invalid_request", text, { param: "settings.kv_tokens" });
  if (deterministic) throw refuse("A deterministic model has a context for each slot: leave kv_tokens out.");
  const most = slots * context_tokens;
  if (kv_tokens < context_tokens || kv_tokens > most) {
    throw refuse(`kv_tokens must be ${context_tokens} (one context) to ${most} (one for each slot).`);
  }
}

/** Throws `invalid_request` for bounds that contradict each other. */
function checkScaling({ min_instances = 0, max_instances }: ModelSettings): void {
  if (max_instances === undefined || min_instances <= max_instances) return;
  const message = `min_instances (${min_instances}) must not be above max_instances (${max_instances}).`;
  throw new SllmError("invalid_request", message, { param: "settings.min_instances" });
}

/** POST answers 201 with the model, 409 `model_exists`, 422 for a manifest that does not match its digest or a model that fits no device; DELETE answers 200 and leaves running work to its end. */
function modelRoutes({ store, fleet, log, keep_alive_ms }: AdminDeps): Hono<AppEnv> {
  const notFound = (id: string) => new SllmError("model_not_found", `The model '${id}' is not deployed.`);
  return new Hono<AppEnv>()
    .post("/", async (c) => {
      const request = await readBody(c, deployRequest, limits.manifest_bytes);
      const { manifest, settings } = request;
      await checkManifestDigest(manifest);
      const context_tokens = Math.min(
        manifest.model.context_tokens,
        settings.context_tokens ?? defaultContext_tokens,
      );
      checkKvSettings(settings, context_tokens);
      checkScaling(settings);
      await fleet.refresh();
      checkFits(fleet.snapshot, manifest, { ...settings, context_tokens });
      const model = await store.deployModel(request, {
        context_tokens,
        keep_alive_ms: settings.keep_alive_ms ?? keep_alive_ms,
      });
      await fleet.refresh();
      log.info("model_deployed", { model_id: model.model_id, checkpoint: model.checkpoint });
      const checkpoint = { digest: manifest.digest, manifest, created_at: model.created_at };
      return c.json(toDeployedModel(model, checkpoint, fleet.instances), 201);
    })
    .get("/", async (c) => {
      await fleet.known();
      const models = await store.listModels();
      const data = models.map(({ model, checkpoint }) => toDeployedModel(model, checkpoint, fleet.instances));
      return c.json({ data });
    })
    .get("/:id{.+}", async (c) => {
      await fleet.known();
      const id = c.req.param("id");
      const found = await store.getModel(id);
      if (found === null) throw notFound(id);
      return c.json(toDeployedModel(found.model, found.checkpoint, fleet.instances));
    })
    .delete("/:id{.+}", async (c) => {
      const id = c.req.param("id");
      if (!(await store.deleteModel(id))) throw notFound(id);
      await fleet.refresh();
      log.info("model_deleted", { model_id: id });
      return c.json({ id, deleted: true });
    });
}

function clusterViews({ store, fleet, reports, explanations }: AdminDeps): Hono<AppEnv> {
  return new Hono<AppEnv>()
    .get("/workers", async (c) => {
      await fleet.known();
      return c.json({ data: fleet.snapshot.workers.map((worker) => toAdminWorker(worker, fleet.snapshot)) });
    })
    .get("/instances", async (c) => {
      await fleet.known();
      const query = parseOrThrow(instancesQuery, { ended: c.req.query("ended") }, "query");
      const ended = query.ended > 0 ? await store.endedInstances(query.ended) : [];
      const live = new Set(fleet.instances.map((i) => i.instance_id));
      const all = [...fleet.instances, ...ended.filter((i) => !live.has(i.instance_id))];
      const data = all.map((instance) => {
        const { worker_id, instance_id } = instance;
        const reported = reports.of(worker_id, instance_id);
        return toAdminInstance(
          instance,
          reported,
          fleet.inFlight(instance_id),
          fleet.lastUsedMs(instance_id),
        );
      });
      return c.json({ data });
    })
    .get("/estimates", async (c) => {
      const rows = await store.estimates();
      return c.json({ data: rows.map(toAdminEstimate) });
    })
    .get("/generations/:id", async (c) => {
      const id = parseOrThrow(generationId, c.req.param("id"), "id");
      const row = await store.getGeneration(id);
      if (row === null) throw new SllmError("not_found", `The generation '${id}' is not known.`);
      return c.json(toAdminGeneration(row));
    })
    .get("/requests/:id", async (c) => {
      const id = parseOrThrow(generationId, c.req.param("id"), "id");
      const row = await store.getGeneration(id);
      if (row === null) throw new SllmError("not_found", `The request '${id}' is not known.`);
      return c.json(toExplainedRequest(row, explanations.of(id)));
    });
}
