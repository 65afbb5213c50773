/**
 * Runs a gateway as a process: settings from SLLM_* variables, one ready line on standard output, log lines on
 * standard error, a graceful end on SIGTERM and SIGINT. The runtimes differ only in how they serve and fetch.
 */
import process from "node:process";
import { SllmError } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import type { Gateway } from "../gateway.ts";
import { type Database, openDatabase } from "../store/database.ts";
import type { Fetch } from "../workers/http-worker-client.ts";
import { composeGateway, type GatewaySettings, jsonLog, readSettings } from "./compose.ts";
import { openEmbeddedDatabase } from "./embedded-database.ts";
import { prepareDatabase } from "./migrate.ts";

export interface Server {
  readonly port: number;
  /** Accepts nothing any more; resolves when the requests under way, streams included, have ended. */
  drain(): Promise<void>;
  /** Cuts what is left. */
  cut(): void;
}

export type Handler = (request: Request) => Response | Promise<Response>;

export interface Host {
  /** Serves HTTP without idle time-outs: event streams may be silent for long. */
  serve(handle: Handler, options: { host: string; port: number }): Promise<Server>;
  /** For calls of workers: without time-outs of its own. */
  readonly fetch: Fetch;
}

/** Connections of one gateway process to a Postgres server: statements are short, streams hold none. */
const databaseConnections = 10;

const log = jsonLog((line) => process.stderr.write(`${line}\n`));

/** Starts the gateway and ends the process by itself. What cannot start ends it with status 1 and one log line. */
export async function runGateway(host: Host): Promise<void> {
  try {
    await start(host);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    log.error("start_failed", { reason, ...(error instanceof SllmError ? { code: error.code } : {}) }, error);
    process.exit(1);
  }
}

async function start(host: Host): Promise<void> {
  // Who reads our lines may go before us; that nobody listens any more must not spoil a graceful end.
  for (const output of [process.stdout, process.stderr]) output.on("error", () => undefined);
  const ends = listenForEnd();
  const settings = readSettings(process.env);
  const database = await openConfigured(settings);
  try {
    const applied = await prepareDatabase(database.db, settings.gateway.migrations);
    if (applied.length > 0) log.info("database_migrated", { migrations: applied.join(",") });
    const gateway = composeGateway(settings, { database, fetch: host.fetch, log });
    await gateway.start();
    const server = await host.serve((request) => gateway.app.fetch(request), settings.gateway);
    ends.handle(endOnce(gateway, server, database));
    const url = `http://${urlHost(settings.gateway.host)}:${server.port}`;
    log.info("ready", { url, gateway_id: gateway.gateway_id });
    process.stdout.write(`${JSON.stringify({ event: "ready", role: "gateway", url })}\n`);
  } catch (error) {
    await database.close(0);
    throw error;
  }
}

async function openConfigured(settings: GatewaySettings): Promise<Database> {
  const { database_url } = settings.gateway;
  if (database_url !== "embedded") return openDatabase(database_url, { max: databaseConnections });
  const database = await openEmbeddedDatabase(settings.data_dir);
  database.died.catch((error: unknown) => {
    log.error("database_died", {}, error);
    process.exit(1);
  });
  return database;
}

interface Ends {
  /** Who is told of every wish to end from now on, and at once of those that came before. */
  handle(end: (reason: string) => void): void;
}

/**
 * Listens for signals and for the end of the parent from the first moment: a database that is being opened must be
 * closed again, so an early signal waits until there is something to end. A second one before that ends at once.
 */
function listenForEnd(): Ends {
  let early: string | null = null;
  let end = (reason: string) => {
    if (early !== null) process.exit(1);
    early = reason;
  };
  process.on("SIGTERM", () => end("SIGTERM"));
  process.on("SIGINT", () => end("SIGINT"));
  if (process.env.SLLM_EXIT_WITH_PARENT === "1") {
    process.stdin.on("end", () => end("parent is gone"));
    process.stdin.on("error", () => end("parent is gone"));
    process.stdin.resume();
  }
  return {
    handle(handler) {
      end = handler;
      if (early !== null) handler(early);
    },
  };
}

/** The first call ends gracefully, a second one at once what the first still waits for. */
function endOnce(gateway: Gateway, server: Server, database: Database): (reason: string) => void {
  let ending: Promise<void> | null = null;
  return (reason) => {
    if (ending !== null) {
      server.cut();
      return;
    }
    log.info("stopping", { reason });
    ending = endGracefully(gateway, server, database).then(
      () => process.exit(0),
      (error: unknown) => {
        log.error("stop_failed", {}, error);
        process.exit(1);
      },
    );
  };
}

async function endGracefully(gateway: Gateway, server: Server, database: Database): Promise<void> {
  const stopped = gateway.stop();
  const timer = setTimeout(() => {
    log.warn("streams_cut", { after_ms: limits.drain_ms });
    server.cut();
  }, limits.drain_ms);
  await server.drain();
  clearTimeout(timer);
  await stopped;
  // Once more, for the records of streams that ended while the server was drained.
  await gateway.stop();
  await database.close(limits.control_call_ms);
  log.info("stopped");
}

/** An address as it stands in a URL; who listens everywhere is reached from the own host by loopback. */
function urlHost(host: string): string {
  if (host === "0.0.0.0" || host === "::") return "127.0.0.1";
  return host.includes(":") && !host.startsWith("[") ? `[${host}]` : host;
}
