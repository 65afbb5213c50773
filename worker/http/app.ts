/** The worker's HTTP API (schema/cluster/protocol.ts): route table, authentication, one place for errors. */
import { type Context, Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { loadRequest, type ParkResponse, type UnloadResponse } from "../../schema/cluster/instances.ts";
import { type LoadsQuery, type LoadTrace, loadsQuery } from "../../schema/cluster/loads.ts";
import type { DrainResponse } from "../../schema/cluster/moves.ts";
import { type PreloadResponse, preloadRequest } from "../../schema/cluster/preloads.ts";
import { workerPaths } from "../../schema/cluster/protocol.ts";
import type { WorkerStatus } from "../../schema/cluster/status.ts";
import { parseOrThrow, SllmError, toErrorBody, toSllmError } from "../../schema/error.ts";
import { instanceId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { GenerationRegistry } from "../generations/registry.ts";
import { LoadReader } from "../instances/load-reader.ts";
import type { Supervisor } from "../instances/supervisor.ts";
import type { Arrivals } from "../moves/arrivals.ts";
import type { Departures } from "../moves/departures.ts";
import type { Clock, Log } from "../ports.ts";
import { clusterAuth } from "./cluster-auth.ts";
import { eventStream } from "./event-stream.ts";
import { generationRoutes } from "./generation-routes.ts";
import { moveRoutes } from "./move-routes.ts";
import { ownIncarnation } from "./own-incarnation.ts";
import { readBody } from "./read-body.ts";

export interface WorkerAppOptions {
  readonly cluster_token: string;
  /** Of this process: calls that name another one are refused. */
  readonly incarnation: string;
  readonly supervisor: Supervisor;
  readonly generations: GenerationRegistry;
  readonly departures: Departures;
  readonly arrivals: Arrivals;
  readonly status: () => Promise<WorkerStatus>;
  /** Traces of the last loads. */
  readonly loads: (query: LoadsQuery) => LoadTrace[];
  /** False while the worker shuts down. */
  readonly isReady: () => boolean;
  /** Ends the process in order, when its streams have left. */
  readonly onDrain: () => void;
  readonly clock: Clock;
  readonly log: Log;
}

/** All routes. Every error is the envelope of schema/error.ts. */
export function createWorkerApp(options: WorkerAppOptions): Hono {
  const { supervisor, generations, clock } = options;
  const app = new Hono();
  app.get(workerPaths.livez, (c) => c.json({ status: "ok" }));
  app.use(clusterAuth(options.cluster_token));
  app.use(ownIncarnation(options.incarnation));
  app.use(bodyLimit({ maxSize: limits.worker_body_bytes, onError: refuseBody }));
  app.get("/readyz", (c) => {
    if (!options.isReady()) throw new SllmError("worker_unavailable", "This worker is shutting down.");
    return c.json({ status: "ok" });
  });
  app.get(workerPaths.status, async (c) => c.json(await options.status()));
  app.get(workerPaths.loads, (c) =>
    c.json({ data: options.loads(parseOrThrow(loadsQuery, c.req.query(), "query")) }),
  );
  app.post(workerPaths.instances, async (c) => {
    const instance = await supervisor.load(await readBody(c, loadRequest));
    return eventStream(new LoadReader(instance, clock), clock, c.req.raw.signal);
  });
  app.post(`${workerPaths.instances}/:id/park`, async (c) => {
    const instance_id = parseOrThrow(instanceId, c.req.param("id"), "id");
    await supervisor.park(instance_id);
    return c.json({ instance_id, state: "parked" } satisfies ParkResponse);
  });
  app.post(workerPaths.preloads, async (c) => {
    const { checkpoint } = await readBody(c, preloadRequest);
    const outcome = await supervisor.preload(checkpoint);
    return c.json({ checkpoint, outcome } satisfies PreloadResponse);
  });
  app.delete(`${workerPaths.instances}/:id`, async (c) => {
    const instance_id = parseOrThrow(instanceId, c.req.param("id"), "id");
    await supervisor.unload(instance_id, { if_idle: c.req.query("if_idle") === "1" });
    return c.json({ instance_id, state: "gone" } satisfies UnloadResponse);
  });
  app.post(workerPaths.drain, (c) => {
    const running = generations.running().length;
    options.onDrain();
    return c.json({ generations: running } satisfies DrainResponse);
  });
  app.route("/", generationRoutes(generations, clock));
  app.route("/", moveRoutes(options));
  app.notFound((c) =>
    respond(c, new SllmError("route_not_found", `There is no ${c.req.method} ${c.req.path}.`)),
  );
  app.onError((thrown, c) => {
    const error = toSllmError(thrown);
    if (error.code === "internal") options.log.error("request_failed", { path: c.req.path }, error.cause);
    return respond(c, error);
  });
  return app;
}

function respond(c: Context, error: SllmError): Response {
  return c.newResponse(JSON.stringify(toErrorBody(error)), {
    status: error.http_status as 500,
    headers: { "content-type": "application/json" },
  });
}

function refuseBody(): never {
  throw new SllmError("payload_too_large", `A body may have ${limits.worker_body_bytes} bytes.`);
}
