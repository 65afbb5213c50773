/** Refuses calls that are meant for another process: an earlier one of this worker, or one that had this address. */
import type { MiddlewareHandler } from "hono";
import { incarnationHeader } from "../../schema/cluster/protocol.ts";
import { SllmError } from "../../schema/error.ts";

/** Middleware: `stale_epoch` where the call names another incarnation; one that names none may be meant for any. */
export function ownIncarnation(incarnation: string): MiddlewareHandler {
  return async (context, next) => {
    const meant = context.req.header(incarnationHeader);
    if (meant !== undefined && meant !== incarnation) {
      const message = "The call is meant for another process of this worker.";
      throw new SllmError("stale_epoch", message, { param: "incarnation" });
    }
    await next();
  };
}
