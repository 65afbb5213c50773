/**
 * Starts gateway and worker of one data folder as processes, in order, and stops them in the reverse order. `up`
 * and `demo` differ only in what they do in between.
 */
import { join } from "node:path";
import { firstToken } from "../../../schema/api-key.ts";
import { type Config, variablesFromConfig } from "../../../schema/config.ts";
import { GatewayClient, type GatewayTarget } from "../gateway/gateway-client.ts";
import { isSettingVariable } from "../settings/settings.ts";
import type { TextOutput } from "../terminal/progress.ts";
import { clusterToken, makeDataFolder } from "./data-folder.ts";
import { takeLock } from "./lock.ts";
import { formatLogLine, type Verbosity } from "./log-line.ts";
import { ManagedProcess, type ProcessSpec } from "./managed-process.ts";
import { prepareSampleModel } from "./sample-model.ts";

export interface SystemOptions {
  /** `data_dir` is absolute. */
  readonly config: Config;
  readonly roles: { readonly gateway: boolean; readonly worker: boolean };
  /** True when the user named the gateways a worker reports to; else it gets the one started here. */
  readonly hasOwnGateways: boolean;
  readonly offerSample: boolean;
  readonly root: string;
  readonly variables: Readonly<Record<string, string | undefined>>;
  readonly verbosity: Verbosity;
  /** Log lines and what happens to the processes. */
  note(line: string): void;
  readonly progress: TextOutput;
  /** Ends a start under way; a running system is ended by stop(). */
  readonly signal: AbortSignal;
}

export interface RunningSystem {
  /** null for a role that was not started. */
  readonly gateway: GatewayTarget | null;
  readonly worker_url: string | null;
  /** True when the sample model is deployed. */
  readonly hasSample: boolean;
  /** Worker first, so that it can say goodbye; resolves when every process is gone and the lock released. */
  stop(): Promise<void>;
}

/** Starts the system and resolves when it can serve. On failure everything started so far is stopped again. */
export async function startSystem(options: SystemOptions): Promise<RunningSystem> {
  const { data_dir } = options.config;
  makeDataFolder(data_dir);
  const lock = takeLock(data_dir);
  const processes: ManagedProcess[] = [];
  const stop = once(async () => {
    for (const process of processes.toReversed()) await process.stop();
    lock.release();
  });
  const onAbort = () => void stop();
  options.signal.addEventListener("abort", onAbort, { once: true });
  try {
    const launched = await launch(options, processes);
    if (launched.gateway !== null) lock.announce(launched.gateway.url);
    options.signal.throwIfAborted();
    return { ...launched, stop };
  } catch (error) {
    await stop();
    options.signal.throwIfAborted();
    throw error;
  } finally {
    options.signal.removeEventListener("abort", onAbort);
  }
}

async function launch(
  options: SystemOptions,
  processes: ManagedProcess[],
): Promise<Omit<RunningSystem, "stop">> {
  const { roles, root, config } = options;
  const cluster_token = config.cluster_token ?? clusterToken(config.data_dir);
  let settings: Config = { ...config, cluster_token };
  const start = async (role: "gateway" | "worker") => {
    const process = new ManagedProcess(specOf(role, options, () => settings));
    processes.push(process);
    return process.start();
  };
  const sample =
    options.offerSample && roles.gateway && roles.worker
      ? prepareSampleModel(root, config.data_dir, options.progress, options.signal)
      : null;
  // Its failure is met below; without this a gateway that fails first would leave it unhandled.
  sample?.catch(() => {});

  const gatewayUrl = roles.gateway ? await start("gateway") : null;
  if (gatewayUrl !== null) {
    const gateways = options.hasOwnGateways ? settings.worker.gateways : [gatewayUrl];
    const port = Number(new URL(gatewayUrl).port);
    settings = {
      ...settings,
      gateway: { ...settings.gateway, port },
      worker: { ...settings.worker, gateways },
    };
  }
  const prepared = await sample;
  const worker_url = roles.worker ? await start("worker") : null;
  if (gatewayUrl === null) return { gateway: null, worker_url, hasSample: false };
  const gateway: GatewayTarget = {
    url: gatewayUrl,
    admin_token: settings.gateway.admin_token,
    api_key: firstToken(settings.gateway.api_keys),
  };
  const client = new GatewayClient(gateway);
  if (roles.worker && !options.hasOwnGateways) await untilWorkerReady(client, options.signal);
  return { gateway, worker_url, hasSample: (await prepared?.offer(client)) ?? false };
}

function specOf(role: "gateway" | "worker", options: SystemOptions, settings: () => Config): ProcessSpec {
  const inherited = Object.entries(options.variables).filter(([name]) => !isSettingVariable(name));
  return {
    role,
    // A .env file in the project's folder is no source of settings; Bun would read it.
    command: [process.execPath, "--no-env-file", join(options.root, role, "main", "bun.ts")],
    folder: options.root,
    variables: () => ({
      ...Object.fromEntries(
        inherited.flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
      ),
      ...variablesFromConfig(settings()),
      SLLM_EXIT_WITH_PARENT: "1",
    }),
    onLog: (line) => {
      const text = formatLogLine(role, line, options.verbosity);
      if (text !== null) options.note(text);
    },
    onCrash: (description, delay_ms) =>
      options.note(`${role}: ended unexpectedly (${description}), starting it again in ${delay_ms / 1000} s`),
    onRestart: (url) => options.note(`${role}: running again at ${url}`),
  };
}

/** A worker that just started registers within a heartbeat or two. */
const registrationMsMax = 15_000;
const registrationPollMs = 50;

/** Waits until the gateway knows a ready worker, so that the first request does not have to. */
async function untilWorkerReady(gateway: GatewayClient, signal: AbortSignal): Promise<void> {
  for (let waited_ms = 0; waited_ms < registrationMsMax; waited_ms += registrationPollMs) {
    const workers = await gateway.listWorkers();
    if (workers.some((worker) => worker.state === "ready")) return;
    signal.throwIfAborted();
    await Bun.sleep(registrationPollMs);
  }
  throw new Error(`the worker did not register with the gateway within ${registrationMsMax / 1000} s`);
}

function once(action: () => Promise<void>): () => Promise<void> {
  let running: Promise<void> | null = null;
  return () => {
    running ??= action();
    return running;
  };
}
