/** Refuses requests without an accepted bearer token with 401. */
import { createMiddleware } from "hono/factory";
import { SllmError } from "../../../schema/error.ts";
import { createBearerCheck } from "../../auth/bearer.ts";
import type { AppEnv } from "../context.ts";

/**
 * `what` names the token in the message. An empty list refuses everything; who wants an open route does not install
 * the middleware.
 */
export function requireBearer(accepted: readonly string[], what: string) {
  const isAccepted = createBearerCheck(accepted);
  return createMiddleware<AppEnv>(async function requireBearer(c, next) {
    if (!isAccepted(c.req.header("authorization"))) {
      throw new SllmError("invalid_api_key", `A valid ${what} is needed as a bearer token.`);
    }
    await next();
  });
}
