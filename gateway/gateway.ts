/** Composes a gateway from ports: the app, and what runs beside it. Binds nothing; gateway/main does. */
import type { GatewayConfig } from "../schema/config.ts";
import { type App, createApp } from "./app.ts";
import type { Clock, Log, Random, StateStore, WorkerClient } from "./ports.ts";

export interface GatewayDeps {
  readonly config: GatewayConfig;
  /** Shared with the workers: they must show it here, and `workers` shows it to them. */
  readonly cluster_token: string;
  readonly store: StateStore;
  readonly workers: WorkerClient;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly version: string;
}

export interface Gateway {
  /** `app.fetch` is the request handler of every runtime. */
  readonly app: App;
  /** Starts the reconcile loop. Resolves after its first turn, whether the database answered or not. */
  start(): Promise<void>;
  /** Not ready from now on; resolves when the loop has ended and records under way are written. Streams go on. */
  stop(): Promise<void>;
}

export function createGateway(deps: GatewayDeps): Gateway {
  let stopping = false;
  const app = createApp({
    store: deps.store,
    version: deps.version,
    random: deps.random,
    log: deps.log,
    isStopping: () => stopping,
  });
  return {
    app,
    start: async () => {
      await deps.store.ping();
    },
    stop: async () => {
      stopping = true;
    },
  };
}
