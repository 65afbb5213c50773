/** What middleware leaves for the routes behind it. */
import type { Context } from "hono";

export interface AppEnv {
  Variables: {
    /** Set first of all, on every request. */
    request_id: string;
  };
}

export type AppContext = Context<AppEnv>;
