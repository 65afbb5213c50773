/** The one place where errors become responses: always OpenAI's envelope, also for unknown routes and defects. */
import { SllmError, toErrorBody, toSllmError } from "../../schema/error.ts";
import type { Log } from "../ports.ts";
import type { AppContext } from "./context.ts";

/** Answers an error. Retry headers follow the error; defects are logged with their cause, clients never see it. */
export function respondError(c: AppContext, thrown: unknown, log: Log): Response {
  const error = toSllmError(thrown);
  const request_id = c.get("request_id");
  if (error.code === "internal") log.error("request_failed", { request_id, path: c.req.path }, error.cause);
  return new Response(JSON.stringify(toErrorBody(error, request_id)), {
    status: error.http_status,
    headers: { "content-type": "application/json", ...retryHeaders(error) },
  });
}

/** Whole seconds for Retry-After, as the header's grammar wants, and the exact time beside it. */
function retryHeaders(error: SllmError): Record<string, string> {
  if (error.code === "invalid_api_key") return { "www-authenticate": "Bearer" };
  if (error.retry_after_ms === undefined) return {};
  const retry_after_ms = Math.max(0, Math.ceil(error.retry_after_ms));
  return {
    "retry-after": String(Math.max(1, Math.ceil(retry_after_ms / 1000))),
    "retry-after-ms": String(retry_after_ms),
  };
}

export function routeNotFound(c: AppContext): SllmError {
  return new SllmError("route_not_found", `No route ${c.req.method} ${c.req.path}.`);
}

/** 405 with the methods that the path takes in the Allow header. */
export function respondNotAllowed(c: AppContext, allowed: readonly string[], log: Log): Response {
  const methods = allowed.join(", ");
  const error = new SllmError("method_not_allowed", `${c.req.path} takes ${methods}, not ${c.req.method}.`);
  const response = respondError(c, error, log);
  response.headers.set("allow", methods);
  return response;
}
