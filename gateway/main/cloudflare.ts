/**
 * The gateway on Cloudflare. A gateway lives on: it holds requests while models load, watches leases and stops idle
 * instances. Isolates of Workers share no connection between requests and are gone after them, so the gateway is a
 * Durable Object, in which both last, and the Worker in front only passes requests on.
 */
import type { Gateway } from "../gateway.ts";
import { openDatabase } from "../store/database.ts";
import { composeGateway, jsonLog, readSettings } from "./compose.ts";
import { prepareDatabase } from "./migrate.ts";

/** The part of the platform's API that is used here. */
interface ObjectNamespace {
  idFromName(name: string): unknown;
  get(id: unknown): { fetch(request: Request): Promise<Response> };
}
interface ObjectState {
  readonly storage: {
    getAlarm(): Promise<number | null>;
    setAlarm(at_ms: number): Promise<void>;
  };
}

/** Bindings: the object below, a Hyperdrive in front of Postgres (or SLLM_GATEWAY_DATABASE_URL), SLLM_* variables. */
interface Env {
  readonly GATEWAY: ObjectNamespace;
  readonly HYPERDRIVE?: { readonly connectionString: string };
  readonly [variable: string]: unknown;
}

/** An object without requests is put away after some ten seconds; alarms keep it and its reconcile loop going. */
const alarm_ms = 5_000;

/** A Worker may hold six connections at once; workers of the cluster need the others. */
const databaseConnections = 2;

export class GatewayObject {
  readonly #state: ObjectState;
  readonly #env: Env;
  #gateway: Promise<Gateway> | null = null;

  constructor(state: ObjectState, env: Env) {
    this.#state = state;
    this.#env = env;
  }

  async fetch(request: Request): Promise<Response> {
    const gateway = await this.#running();
    return await gateway.app.fetch(request);
  }

  /** Called by the platform, also after it moved or restarted the object. */
  async alarm(): Promise<void> {
    await this.#state.storage.setAlarm(Date.now() + alarm_ms);
    await this.#running();
  }

  /** The object's one gateway. A start that failed is tried again by the next call. */
  #running(): Promise<Gateway> {
    this.#gateway ??= this.#start().catch((error: unknown) => {
      this.#gateway = null;
      throw error;
    });
    return this.#gateway;
  }

  async #start(): Promise<Gateway> {
    const settings = readSettings({
      // A Worker is public: without a token the admin API must not exist.
      SLLM_GATEWAY_HOST: "0.0.0.0",
      ...textBindings(this.#env),
    });
    const url = this.#env.HYPERDRIVE?.connectionString ?? settings.gateway.database_url;
    if (url === "embedded") throw new Error("bind HYPERDRIVE or set SLLM_GATEWAY_DATABASE_URL");
    const database = openDatabase(url, { max: databaseConnections });
    const log = jsonLog((line) => console.log(line));
    await prepareDatabase(database.db, settings.gateway.migrations);
    const gateway = composeGateway(settings, { database, fetch: fetchWorker, log });
    await gateway.start();
    if ((await this.#state.storage.getAlarm()) === null) {
      await this.#state.storage.setAlarm(Date.now() + alarm_ms);
    }
    return gateway;
  }
}

/** workerd has no `redirect: "error"`. A redirect that is not followed counts as a refusal just the same. */
function fetchWorker(url: string, init: RequestInit): Promise<Response> {
  return fetch(url, { ...init, redirect: "manual" });
}

function textBindings(env: Env): Record<string, string> {
  const entries = Object.entries(env).filter(
    (entry): entry is [string, string] => typeof entry[1] === "string",
  );
  return Object.fromEntries(entries);
}

export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    return await env.GATEWAY.get(env.GATEWAY.idFromName("gateway")).fetch(request);
  },
};
