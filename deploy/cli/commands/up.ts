/** `sllm up`: gateway and worker of this machine, until told to stop. */
import type { Command } from "../command.ts";
import { exitStatus, UsageError } from "../failure.ts";
import type { GatewayTarget } from "../gateway/gateway-client.ts";
import { type FlagSetting, readSettings, type Settings } from "../settings/settings.ts";
import { root, settingsArgs, surroundingsOfProcess } from "../settings/surroundings.ts";
import { sampleModel } from "../system/sample-model.ts";
import { type RunningSystem, startSystem } from "../system/start-system.ts";
import { listenForStop } from "../system/stop-signals.ts";
import { printLine, printNote } from "../terminal/output.ts";

export const up: Command = {
  name: "up",
  summary: "Start gateway and worker on this machine, until Ctrl-C",
  args: {
    ...settingsArgs,
    host: { type: "string", valueHint: "address", description: "Address of the gateway (SLLM_GATEWAY_HOST)" },
    port: {
      type: "string",
      valueHint: "n",
      description: "Port of the gateway, 0 for a free one (SLLM_GATEWAY_PORT)",
    },
    "database-url": {
      type: "string",
      valueHint: "url",
      description: "postgres:// URL or 'embedded' (SLLM_GATEWAY_DATABASE_URL)",
    },
    "memory-bytes": {
      type: "string",
      valueHint: "n",
      description: "Memory for models (SLLM_WORKER_MEMORY_BYTES)",
    },
    threads: {
      type: "string",
      valueHint: "n",
      description: "Compute threads of an engine (SLLM_WORKER_THREADS)",
    },
    gateway: {
      type: "boolean",
      default: true,
      description: "Run the gateway",
      negativeDescription: "Only a worker",
    },
    worker: {
      type: "boolean",
      default: true,
      description: "Run a worker",
      negativeDescription: "Only the gateway",
    },
    sample: {
      type: "boolean",
      default: true,
      description: "Deploy the sample model at the first start",
      negativeDescription: "Do not deploy the sample model at the first start",
    },
    verbose: { type: "boolean", description: "Show every log line, not only warnings and errors" },
  },
  examples: [
    ["sllm up", "everything on this machine, data in .sllm"],
    ["sllm up --port 9000 --data-dir /var/lib/sllm", "another port and folder"],
    ["sllm up --no-gateway --config worker.yaml", "a further worker of an existing gateway"],
  ],
  async run(args) {
    const roles = { gateway: args.isOn("gateway"), worker: args.isOn("worker") };
    if (!roles.gateway && !roles.worker)
      throw new UsageError("--no-gateway and --no-worker leave nothing to start");
    const flags: FlagSetting[] = [
      { flag: "--data-dir", path: ["data_dir"], value: args.text("data-dir") },
      { flag: "--host", path: ["gateway", "host"], value: args.text("host") },
      { flag: "--port", path: ["gateway", "port"], value: args.text("port") },
      { flag: "--database-url", path: ["gateway", "database_url"], value: args.text("database-url") },
      { flag: "--memory-bytes", path: ["worker", "memory_bytes"], value: args.text("memory-bytes") },
      { flag: "--threads", path: ["worker", "threads"], value: args.text("threads") },
    ];
    const surroundings = surroundingsOfProcess();
    const settings = readSettings(flags, args.text("config"), surroundings);
    const stop = listenForStop(() => process.exit(exitStatus.interrupted));
    try {
      printNote("Starting ...");
      const system = await startSystem({
        config: settings.config,
        roles,
        hasOwnGateways: settings.isSet("worker", "gateways"),
        offerSample: args.isOn("sample"),
        root,
        variables: surroundings.variables,
        verbosity: args.isOn("verbose") ? "all" : "notable",
        note: printNote,
        progress: process.stderr,
        signal: stop.signal,
      });
      await serve(system, settings, stop.signal);
      return exitStatus.ok;
    } catch (error) {
      if (!stop.signal.aborted || error !== stop.signal.reason) throw error;
      printNote("\nStopped before everything was up.");
      return exitStatus.ok;
    } finally {
      stop.stopListening();
    }
  },
};

async function serve(system: RunningSystem, settings: Settings, signal: AbortSignal): Promise<void> {
  for (const line of readyLines(system, settings)) printLine(line);
  await new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
  printNote("\nStopping ...");
  await system.stop();
  printNote("Stopped.");
}

function readyLines({ gateway, worker_url, hasSample }: RunningSystem, { config }: Settings): string[] {
  if (gateway === null)
    return [`Ready: worker at ${worker_url}, reporting to ${config.worker.gateways.join(", ")}`];
  return [
    `Ready: gateway at ${gateway.url}${worker_url === null ? ", no worker" : `, worker at ${worker_url}`}`,
    ...(hasSample ? ["", ...curlLines(gateway), ""] : []),
    "Ctrl-C stops it.",
  ];
}

/** A request to paste into another terminal. */
function curlLines({ url, api_key }: GatewayTarget): string[] {
  const body = {
    model: sampleModel.id,
    stream: true,
    max_tokens: 64,
    messages: [{ role: "user", content: "To be, or not to be" }],
  };
  // The key itself stays off the screen, where logs and screenshots would keep it.
  const key = api_key === undefined ? "" : ' -H "authorization: Bearer $SLLM_API_KEY"';
  return [
    `curl -N ${url}/v1/chat/completions -H "content-type: application/json"${key} -d '${JSON.stringify(body)}'`,
  ];
}
