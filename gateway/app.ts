/** The gateway's HTTP surface: order of the middleware and table of the routes. No logic of its own. */
import { Hono } from "hono";
import { methodNotAllowed } from "hono/method-not-allowed";
import type { AppEnv } from "./http/context.ts";
import { requestId } from "./http/middleware/request-id.ts";
import * as onError from "./http/on-error.ts";
import { type HealthDeps, healthRoutes } from "./http/routes/health.ts";
import type { Log, Random } from "./ports.ts";

export interface AppDeps extends HealthDeps {
  readonly random: Random;
  readonly log: Log;
}

export type App = Hono<AppEnv>;

/** Builds the app from its ports. Names no runtime: `app.fetch` runs on Bun, Node, Deno and workerd alike. */
export function createApp(deps: AppDeps): App {
  const app = new Hono<AppEnv>();
  app.onError((thrown, c) => onError.respondError(c, thrown, deps.log));
  app.notFound((c) => onError.respondError(c, onError.routeNotFound(c), deps.log));

  app.use(requestId(deps.random));
  app.use(
    methodNotAllowed({
      app,
      onMethodNotAllowed: (c, allowed) => {
        const response = onError.respondError(c, onError.methodNotAllowed(c, allowed), deps.log);
        response.headers.set("allow", allowed.join(", "));
        return response;
      },
    }),
  );
  app.route("/", healthRoutes(deps));
  return app;
}
