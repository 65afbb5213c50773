/** Says whose request it is; refuses those without an accepted API key with 401 where there are keys. */
import { createMiddleware } from "hono/factory";
import { SllmError } from "../../../schema/error.ts";
import { anyone, createClientSearch } from "../../auth/clients.ts";
import type { AppEnv } from "../context.ts";

/** Without keys everybody may come. */
export function identifyClient(api_keys: readonly string[]) {
  const find = createClientSearch(api_keys);
  return createMiddleware<AppEnv>(async function identifyClient(c, next) {
    const client = api_keys.length === 0 ? anyone : find(c.req.header("authorization"));
    if (client === null)
      throw new SllmError("invalid_api_key", "A valid API key is needed as a bearer token.");
    c.set("client", client);
    await next();
  });
}
