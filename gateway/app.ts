/** The gateway's HTTP surface: order of the middleware and table of the routes. No logic of its own. */
import { Hono } from "hono";
import { methodNotAllowed } from "hono/method-not-allowed";
import type { AppEnv } from "./http/context.ts";
import { requireBearer } from "./http/middleware/bearer.ts";
import { identifyClient } from "./http/middleware/client.ts";
import { cors } from "./http/middleware/cors.ts";
import { requestId } from "./http/middleware/request-id.ts";
import * as onError from "./http/on-error.ts";
import { type AdminDeps, adminRoutes } from "./http/routes/admin.ts";
import { type ClusterDeps, clusterRoutes } from "./http/routes/cluster.ts";
import { type CompletionDeps, completionRoutes } from "./http/routes/completions.ts";
import { type GenerationRouteDeps, generationRoutes } from "./http/routes/generations.ts";
import { type HealthDeps, healthRoutes } from "./http/routes/health.ts";
import { type ModelsDeps, modelsRoutes } from "./http/routes/models.ts";
import { type VectorsDeps, vectorsRoutes } from "./http/routes/vectors.ts";

export interface AppDeps
  extends HealthDeps,
    CompletionDeps,
    GenerationRouteDeps,
    VectorsDeps,
    ModelsDeps,
    AdminDeps,
    ClusterDeps {
  readonly store: HealthDeps["store"] &
    GenerationRouteDeps["store"] &
    AdminDeps["store"] &
    ClusterDeps["store"];
  /** Without any, the public API is open. */
  readonly api_keys: readonly string[];
  /** Without it, the admin API is open; the settings admit that on loopback only. */
  readonly admin_token: string | undefined;
  readonly cluster_token: string;
}

export type App = Hono<AppEnv>;

/** Builds the app from its ports. Names no runtime: `app.fetch` runs on Bun, Node, Deno and workerd alike. */
export function createApp(deps: AppDeps): App {
  const { api_keys, admin_token, cluster_token, log } = deps;
  const app = new Hono<AppEnv>();
  app.onError((thrown, c) => onError.respondError(c, thrown, log));
  app.notFound((c) => onError.respondError(c, onError.routeNotFound(c), log));

  app.use(requestId(deps.random));
  app.use(
    methodNotAllowed({ app, onMethodNotAllowed: (c, allowed) => onError.respondNotAllowed(c, allowed, log) }),
  );
  app.use("/v1/*", cors(api_keys.length > 0));
  app.use("/v1/*", identifyClient(api_keys));
  if (admin_token !== undefined) app.use("/admin/*", requireBearer([admin_token], "admin token"));
  app.use("/cluster/*", requireBearer([cluster_token], "cluster token"));

  app.route("/", healthRoutes(deps));
  app.route("/", completionRoutes(deps));
  app.route("/", generationRoutes(deps));
  app.route("/", vectorsRoutes(deps));
  app.route("/", modelsRoutes(deps));
  app.route("/", adminRoutes(deps));
  app.route("/", clusterRoutes(deps));
  return app;
}
