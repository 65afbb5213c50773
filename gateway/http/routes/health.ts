/** Probes: `/livez` says that the process serves, `/readyz` that it should get traffic. */
import { Hono } from "hono";
import { SllmError } from "../../../schema/error.ts";
import type { StateStore } from "../../ports.ts";
import type { AppEnv } from "../context.ts";

export interface HealthDeps {
  readonly store: Pick<StateStore, "ping">;
  readonly version: string;
  /** True from the begin of a graceful stop: load balancers should look elsewhere while streams end. */
  readonly isStopping: () => boolean;
}

/** GET /livez: 200 without any I/O. GET /readyz: 200, or 503 while stopping or when the database does not answer. */
export function healthRoutes(deps: HealthDeps): Hono<AppEnv> {
  return new Hono<AppEnv>()
    .get("/livez", (c) => c.json({ status: "ok", version: deps.version }))
    .get("/readyz", async (c) => {
      if (deps.isStopping()) throw new SllmError("overloaded", "The gateway is stopping.");
      await deps.store.ping();
      return c.json({ status: "ready", version: deps.version });
    });
}
