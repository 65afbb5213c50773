/** Lets browser pages use the public API. The admin and cluster APIs get no such headers: no page may call them. */
import { cors as honoCors } from "hono/cors";
import { createMiddleware } from "hono/factory";
import type { AppEnv } from "../context.ts";

/** What scripts may read beside the body. */
const exposed = ["x-request-id", "x-sllm-generation", "x-sllm-cold", "retry-after", "retry-after-ms"];
const loopbackOrigin = /^https?:\/\/(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?$/;

/**
 * With API keys any page may call: it has to bring a key. Without keys only pages of this machine may, or every
 * site a user visits could spend the user's hardware.
 */
export function cors(hasApiKeys: boolean) {
  const forPages = honoCors({
    origin: (origin) => (hasApiKeys || loopbackOrigin.test(origin) ? origin : null),
    allowMethods: ["GET", "POST", "OPTIONS"],
    exposeHeaders: exposed,
    maxAge: 600,
  });
  return createMiddleware<AppEnv>(async function cors(c, next) {
    if (c.req.header("origin") !== undefined || c.req.method === "OPTIONS") return forPages(c, next);
    // Programs name no origin and heed none of it. Headers set before the answer is there would be copied into it.
    await next();
    c.res.headers.append("Vary", "Origin");
    return;
  });
}
