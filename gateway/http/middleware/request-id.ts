/** Gives every request an id, takes a sane one from the client, and puts it on every response. */
import { createMiddleware } from "hono/factory";
import { toHex } from "../../../schema/ids.ts";
import { limits } from "../../../schema/limits.ts";
import type { Random } from "../../ports.ts";
import type { AppEnv } from "../context.ts";

const sane = new RegExp(`^[A-Za-z0-9_.:=-]{1,${limits.request_id_chars}}$`);

export function requestId(random: Random) {
  return createMiddleware<AppEnv>(async function requestId(c, next) {
    const given = c.req.header("x-request-id");
    const request_id = given !== undefined && sane.test(given) ? given : `req-${toHex(random.bytes(12))}`;
    c.set("request_id", request_id);
    await next();
    c.res.headers.set("x-request-id", request_id);
  });
}
