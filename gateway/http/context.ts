/** What middleware leaves for the routes behind it. */
import type { Context } from "hono";
import type { Client } from "../auth/clients.ts";

export interface AppEnv {
  Variables: {
    /** Set first of all, on every request. */
    request_id: string;
    /** Set on every request under /v1. */
    client: Client;
  };
}

export type AppContext = Context<AppEnv>;
