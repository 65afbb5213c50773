/** Lets in who knows the cluster token, comparing in constant time. */
import { createHash, timingSafeEqual } from "node:crypto";
import type { MiddlewareHandler } from "hono";
import { SllmError } from "../../schema/error.ts";

/** Digests have one length whatever was sent, which is what the comparison needs. */
function digest(text: string): Uint8Array {
  return createHash("sha256").update(text).digest();
}

/** Middleware: `invalid_api_key` unless the request carries `Authorization: Bearer <token>`. */
export function clusterAuth(token: string): MiddlewareHandler {
  const expected = digest(`Bearer ${token}`);
  return async (context, next) => {
    const given = digest(context.req.header("authorization") ?? "");
    if (!timingSafeEqual(given, expected)) {
      throw new SllmError("invalid_api_key", "The cluster token is missing or wrong.");
    }
    await next();
  };
}
