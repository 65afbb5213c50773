/**
 * The one way to a database: postgres.js under Drizzle. The same driver speaks to Postgres servers, to poolers in
 * front of them and to the embedded database behind its socket, on every runtime.
 */
import { drizzle, type PostgresJsDatabase } from "drizzle-orm/postgres-js";
import postgres from "postgres";

/** A database or a transaction on it. */
export type Db = Pick<
  PostgresJsDatabase,
  "select" | "insert" | "update" | "delete" | "execute" | "transaction"
>;

export interface Database {
  readonly db: Db;
  /** Lets running statements end for at most `within_ms`, then closes the connections. */
  close(within_ms: number): Promise<void>;
}

export interface DatabaseOptions {
  /** Connections held at most. The embedded database has one session, so it must be 1 there. */
  readonly max: number;
  /** Unix socket that takes the place of the URL's host. */
  readonly socket_path?: string;
}

/**
 * Opens a pool; connects lazily. `url` is a `postgres://` URL. Statements are prepared and kept per connection:
 * a transaction pooler must track them (PgBouncer from 1.21, Hyperdrive); for others add `?prepare=false`.
 */
export function openDatabase(url: string, options: DatabaseOptions): Database {
  const client = postgres(url, {
    max: options.max,
    ...(options.socket_path === undefined ? {} : { path: options.socket_path }),
    connect_timeout: 5,
    // Retries come from the callers; a server that is back shall be found at once.
    backoff: () => 0.1,
    // Array types are not used: saves a query at every connect.
    fetch_types: false,
    onnotice: () => undefined,
  });
  return {
    db: drizzle(preparing(client)),
    close: (within_ms) => client.end({ timeout: within_ms / 1000 }),
  };
}

type Unsafe = (text: string, parameters: unknown[], options: object) => unknown;
type Nested = (callback: (inner: object) => unknown) => unknown;

/**
 * Drizzle runs its statements by `unsafe`, which does not prepare them: every call would ask the server for the
 * parameters' types first, one round trip more. Seen through this proxy the statements are prepared once.
 */
function preparing<C extends object>(client: C): C {
  return new Proxy(client, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name);
      if (name === "unsafe") {
        const unsafe = value as Unsafe;
        return (text: string, parameters: unknown[], options: object = {}) =>
          unsafe(text, parameters, { ...options, prepare: true });
      }
      if (name === "begin" || name === "savepoint") {
        const nested = value as Nested;
        return (callback: (inner: object) => unknown) => nested((inner) => callback(preparing(inner)));
      }
      return value;
    },
  });
}
