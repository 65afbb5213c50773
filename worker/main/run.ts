/**
 * Runs a worker as a process: settings from SLLM_* variables, one ready line on standard output, a graceful end on
 * SIGTERM and SIGINT. The runtimes differ only in how they serve HTTP and start a script.
 */
import path from "node:path";
import { runtimeLoader } from "../../native/bun-ffi-helpers/load.ts";
import { NativeLibrary } from "../../native/bun-ffi-helpers/native.ts";
import packageFacts from "../../package.json" with { type: "json" };
import { engineKinds } from "../../schema/cluster/engine.ts";
import { type Config, config, configProblems, settingsFromVariables } from "../../schema/config.ts";
import { defaultNativePaths } from "../checkpoints/import/native-paths.ts";
import { engineLauncher } from "../instances/engine-process.ts";
import { arenaBytes, defaultMemoryBytes, defaultPrefaultBytes } from "./device.ts";
import { type DeviceSetup, driverVariables, findDevices, hostProbe } from "./discrete-devices.ts";
import { keepWorkerId } from "./identity.ts";
import { stderrLog } from "./system.ts";
import { Worker } from "./worker.ts";

export interface Server {
  readonly port: number;
  /** Ends connections and frees the port. */
  stop(): Promise<void>;
}

export interface Host {
  /** Serves HTTP without idle time-outs: event streams may be silent for long. */
  serve(handle: Worker["handle"], options: { host: string; port: number }): Promise<Server>;
  /** Command line that runs a script of this project in a process of its own. */
  scriptArgs(script: string): readonly string[];
}

const engineScript = path.join(import.meta.dirname, "../engine/main.ts");
const listScript = path.join(import.meta.dirname, "../engine/list-devices.ts");

/** Starts the worker and ends the process by itself. Bad settings and a missing library end it with status 1. */
export async function runWorker(host: Host): Promise<void> {
  try {
    await start(host);
  } catch (error) {
    stderrLog.error("start_failed", { reason: error instanceof Error ? error.message : String(error) });
    process.exit(1);
  }
}

async function start(host: Host): Promise<void> {
  // Who reads our lines may go before us; that nobody listens any more must not spoil a graceful end.
  for (const output of [process.stdout, process.stderr]) output.on("error", () => undefined);
  const settings = readSettings();
  const { cluster_token } = settings;
  if (cluster_token === undefined)
    throw new Error("SLLM_CLUSTER_TOKEN is needed: gateways show it to the worker");
  const native = defaultNativePaths();
  const library = NativeLibrary.open(native.library, await runtimeLoader());
  const setup = await findDevices(
    {
      choice: engineKind() === "echo" ? "cpu" : settings.worker.device,
      device_memory_bytes: settings.worker.device_memory_bytes,
      engine_libraries: process.env.SLLM_ENGINE_LIBRARIES,
      cpu_libraries: native.engine_libraries,
    },
    hostProbe([process.execPath, ...host.scriptArgs(listScript)], native.library),
  );
  if (setup.unused !== null) stderrLog.warn("device_unused", { reason: setup.unused });
  const memory_bytes = settings.worker.memory_bytes ?? defaultMemoryBytes();
  const worker_id = await keepWorkerId(settings.data_dir);
  let end: End = () => process.exit(1);
  const worker = new Worker({
    onSuperseded: () => {
      const folder = path.join(settings.data_dir, "worker");
      const reason = `another worker has the same id: one of two that share it must remove ${folder}`;
      stderrLog.error("superseded", { reason });
      end(reason, 1);
    },
    onDrained: () => end("drained"),
    config: settings,
    cluster_token,
    worker_id,
    version: packageFacts.version,
    memory_bytes,
    discrete: setup.devices,
    store: library.createStore({
      arena_bytes: settings.worker.arena_bytes ?? arenaBytes(memory_bytes),
      prefault_bytes: settings.worker.prefault_bytes ?? defaultPrefaultBytes(memory_bytes),
      read_bytes_per_second: settings.worker.disk_read_bytes_per_s ?? 0,
      huge_pages: settings.worker.huge_pages === "auto",
      // The folder of the worker's id, which is there by now.
      state_dir: path.join(settings.data_dir, "worker"),
    }),
    engine: engineKind(),
    launch: engineLauncher({
      command: process.execPath,
      args: host.scriptArgs(engineScript),
      env: engineVariables(native.library, setup),
    }),
  });
  const server = await host.serve(worker.handle, settings.worker);
  const url = settings.worker.advertise_url ?? `http://${urlHost(settings.worker.host)}:${server.port}`;
  end = endOnSignals(worker, server);
  await worker.connect(url);
  process.stdout.write(`${JSON.stringify({ event: "ready", role: "worker", url, worker_id })}\n`);
}

function readSettings(): Config {
  const parsed = config.safeParse(settingsFromVariables(process.env));
  if (!parsed.success) throw new Error(configProblems(parsed.error).join("; "));
  return parsed.data;
}

/** SLLM_ENGINE_KIND=echo serves every model with the echo engine; it exists for the tests of the worker. */
function engineKind(): (typeof engineKinds)[number] {
  const wanted = process.env.SLLM_ENGINE_KIND ?? "llama";
  const kind = engineKinds.find((known) => known === wanted);
  if (!kind)
    throw new Error(`SLLM_ENGINE_KIND is ${JSON.stringify(wanted)}, not one of ${engineKinds.join(", ")}`);
  return kind;
}

/** Engines need no settings and no secrets: only what finds libraries and programs. */
function engineVariables(library: string, setup: DeviceSetup): Record<string, string> {
  const variables: Record<string, string> = {
    SLLM_NATIVE_LIBRARY: library,
    SLLM_ENGINE_LIBRARIES: setup.engine_libraries,
  };
  // Lets the device fetch weights from the arena itself instead of from a copy in page-locked memory.
  if (setup.kind === "cuda") variables.GGML_CUDA_REGISTER_HOST = "1";
  for (const name of [
    ...driverVariables,
    "PATH",
    "HOME",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "SLLM_ECHO_TOKEN_US",
  ]) {
    const value = process.env[name];
    if (value !== undefined) variables[name] = value;
  }
  return variables;
}

/** An address as it stands in a URL; a worker that listens everywhere is reached by gateways on its own host. */
function urlHost(host: string): string {
  if (host === "0.0.0.0" || host === "::") return "127.0.0.1";
  return host.includes(":") && !host.startsWith("[") ? `[${host}]` : host;
}

type End = (reason: string, status?: number) => void;

/** Returns what ends the process for any other reason. */
function endOnSignals(worker: Worker, server: Server): End {
  let ending = false;
  const end = async (reason: string, status = 0) => {
    if (ending) return;
    ending = true;
    stderrLog.info("stopping", { reason });
    await worker.stop();
    await server.stop();
    process.exit(status);
  };
  process.on("SIGTERM", () => void end("SIGTERM"));
  process.on("SIGINT", () => void end("SIGINT"));
  if (process.env.SLLM_EXIT_WITH_PARENT === "1") {
    process.stdin.on("end", () => void end("parent is gone"));
    process.stdin.resume();
  }
  return (reason, status) => void end(reason, status);
}
