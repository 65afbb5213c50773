/** What all composition roots share: settings from variables, and the real adapters bound to the gateway's ports. */
import manifest from "../../package.json" with { type: "json" };
import { type Config, config, configProblems, settingsFromVariables } from "../../schema/config.ts";
import { createGateway, type Gateway } from "../gateway.ts";
import type { Log } from "../ports.ts";
import type { Database } from "../store/database.ts";
import { createStateStore } from "../store/state-store.ts";
import { systemClock } from "../system/clock.ts";
import { createJsonLog } from "../system/log.ts";
import { systemRandom } from "../system/random.ts";
import { createHttpWorkerClient, type Fetch } from "../workers/http-worker-client.ts";

export type GatewaySettings = Config & { readonly cluster_token: string };

/** Settings of SLLM_* variables. Throws an Error that names every setting that is wrong or missing. */
export function readSettings(variables: Record<string, string | undefined>): GatewaySettings {
  const parsed = config.safeParse(settingsFromVariables(variables));
  if (!parsed.success) throw new Error(configProblems(parsed.error).join("; "));
  const { cluster_token } = parsed.data;
  if (cluster_token === undefined) {
    throw new Error(
      "cluster_token (SLLM_CLUSTER_TOKEN): is needed, workers and gateways show it to each other",
    );
  }
  return { ...parsed.data, cluster_token };
}

/** A log that writes JSON lines to `write`. */
export function jsonLog(write: (line: string) => void): Log {
  return createJsonLog(write, systemClock);
}

/** The gateway of these settings on an open, migrated database. `fetch` must not end streams for being silent. */
export function composeGateway(
  settings: GatewaySettings,
  surroundings: { readonly database: Database; readonly fetch: Fetch; readonly log: Log },
): Gateway {
  const { database, fetch, log } = surroundings;
  return createGateway({
    config: settings.gateway,
    cluster_token: settings.cluster_token,
    store: createStateStore(database, systemClock),
    workers: createHttpWorkerClient({ fetch, cluster_token: settings.cluster_token }),
    clock: systemClock,
    random: systemRandom,
    log,
    version: manifest.version,
  });
}
