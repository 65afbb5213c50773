/**
 * Settings of gateway, worker and command line: one schema, read from flags, `SLLM_*` variables and one YAML
 * file, in this order of precedence. Names of variables follow the path: gateway.port is SLLM_GATEWAY_PORT.
 * Longer than other files because every setting is declared and described here.
 */
import { z } from "zod";
import { parseApiKey } from "./api-key.ts";
import { limits } from "./limits.ts";
import { deviceChoices, livePolicies } from "./vocab.ts";

const port = z.coerce.number().int().min(0).max(65_535);
const ms = (max: number) => z.coerce.number().int().min(0).max(max);
const secret = z.string().min(16, "use at least 16 characters");
const apiKey = z.string().superRefine((text, context) => {
  try {
    parseApiKey(text);
  } catch (error) {
    context.addIssue({ code: "custom", message: error instanceof Error ? error.message : "is no key" });
  }
});
/** In variables and flags: true or false. */
const flag = z.preprocess(
  (value) => (value === "true" ? true : value === "false" ? false : value),
  z.boolean(),
);
/** In variables and flags a list is written with commas. */
const list = <T extends z.ZodType>(item: T) =>
  z.preprocess(
    (value) => (typeof value === "string" ? value.split(",").filter((s) => s !== "") : value),
    z.array(item),
  );

export const gatewayConfig = z.strictObject({
  host: z.string().default("127.0.0.1").describe("Address to listen on; loopback unless told otherwise."),
  port: port.default(8343).describe("TCP port; 0 takes a free one."),
  database_url: z
    .string()
    .default("embedded")
    .describe("postgres:// URL, or 'embedded' for a database inside the gateway's data folder."),
  api_keys: list(apiKey)
    .default([])
    .describe(
      "Keys of clients; without any, /v1 is open. '<tenant>:<key>' names whose requests they are, '<tenant>/high:<key>' " +
        "also the highest priority these may ask for (low, normal or high; else normal).",
    ),
  waiting_per_tenant: z.coerce
    .number()
    .int()
    .min(1)
    .max(limits.waiting_requests)
    .default(limits.waiting_per_tenant)
    .describe("Requests of one API key's tenant that may wait at a gateway; more are refused."),
  admin_token: secret.optional().describe("Token of the admin API; needed when not on loopback."),
  keep_alive_ms: ms(86_400_000)
    .default(limits.keep_alive_ms)
    .describe("Idle time before an instance is parked or stopped, for models that do not set their own."),
  move_gap_tokens: z.coerce
    .number()
    .int()
    .min(1)
    .max(limits.move_gap_tokens)
    .default(limits.move_gap)
    .describe(
      "Tokens that a worker may lack of a stream when it takes it over; it computes them in the stream's pause.",
    ),
  move_rounds: z.coerce
    .number()
    .int()
    .min(1)
    .max(limits.move_rounds)
    .default(limits.move_rounds_usual)
    .describe(
      "Rounds after which a stream that does not come that close is handed over if little more is missing, else stays.",
    ),
  park_ms: ms(86_400_000)
    .default(limits.park_ms)
    .describe(
      "Further idle time before a parked instance is stopped; 0 stops instances without parking them.",
    ),
  policy: z
    .enum(livePolicies)
    .default("startup-optimal")
    .describe(
      "How the scheduler chooses where a model starts; all but the default are there for comparison.",
    ),
  starvation_ms: ms(3_600_000)
    .default(limits.starvation_ms)
    .describe(
      "How long a request waits for memory that other models keep busy before they make room, and how long models that " +
        "take turns stay at least.",
    ),
  forecast: flag
    .default(false)
    .describe(
      "Whether models that were lately asked for are read into host memory ahead, where nobody needs that memory.",
    ),
  hold_ms: ms(3_600_000)
    .default(limits.hold_ms)
    .describe("How long a request waits for an instance: a cold model's, memory for one, or a slot."),
  retention_ms: z.coerce
    .number()
    .int()
    .min(60_000)
    .default(limits.retention_ms)
    .describe("How long records of ended requests, ended instances and events are kept in the database."),
  replay_ms: z.coerce
    .number()
    .int()
    .min(0)
    .default(limits.replay_ms)
    .describe(
      "How long the output of an ended request with an idempotency key, 'background' or 'x-sllm-resume' is kept, to be " +
        "told again.",
    ),
  migrations: z
    .enum(["apply", "check"])
    .default("apply")
    .describe(
      "Whether a gateway that starts brings the database's tables up to date ('apply'), or only looks and refuses to " +
        "start ('check'), for a database user who may not change tables: 'sllm migrate' does it then.",
    ),
});
export type GatewayConfig = z.infer<typeof gatewayConfig>;

export const workerConfig = z.strictObject({
  host: z.string().default("127.0.0.1").describe("Address to listen on; loopback unless told otherwise."),
  port: port.default(0).describe("TCP port; 0 takes a free one."),
  advertise_url: z
    .url()
    .optional()
    .describe("URL under which gateways reach this worker, if not the address."),
  gateways: list(z.url())
    .default(["http://127.0.0.1:8343"])
    .describe("Gateways to report to; the first that answers is used."),
  device: z
    .enum(deviceChoices)
    .default("auto")
    .describe("What models compute on; auto: NVIDIA devices where they can be used, else the processors."),
  device_memory_bytes: z.coerce
    .number()
    .int()
    .positive()
    .optional()
    .describe("Memory of each discrete device for models; nine tenths of what it has if left out."),
  memory_bytes: z.coerce
    .number()
    .int()
    .positive()
    .optional()
    .describe(
      "Host memory for models (weights and KV; with discrete devices the host tier); 80 % of what is available at the " +
        "start if left out.",
    ),
  host_cache_bytes: z.coerce
    .number()
    .int()
    .min(0)
    .optional()
    .describe("Host-memory tier for weights of stopped models; half of memory_bytes if left out."),
  arena_bytes: z.coerce
    .number()
    .int()
    .positive()
    .optional()
    .describe("Host memory for weights, used ones included; made of memory_bytes if left out."),
  disk_bytes: z.coerce
    .number()
    .int()
    .min(0)
    .optional()
    .describe("Bytes that checkpoints may take on disk; what it has free, less a reserve, if left out."),
  disk_loads: z.coerce
    .number()
    .int()
    .min(1)
    .max(64)
    .default(limits.disk_loads)
    .describe("Loads that read from the disk at once; others wait in order."),
  disk_read_bytes_per_s: z.coerce
    .number()
    .int()
    .min(1)
    .optional()
    .describe(
      "Bytes per second that loads read from the disk at most, all together; what it gives if left out.",
    ),
  prefault_bytes: z.coerce
    .number()
    .int()
    .min(0)
    .optional()
    .describe(
      "Memory for weights made ready from the start, so that loads need not wait for it; the smaller of an eighth " +
        "of memory_bytes and 2 GiB if left out, 0 for none.",
    ),
  huge_pages: z
    .enum(["auto", "off"])
    .default("auto")
    .describe(
      "Whether weights lie in huge pages where the kernel makes them: 'auto' or 'off'. They let the disk write in " +
        "larger requests and engines map weights at once.",
    ),
  threads: z.coerce
    .number()
    .int()
    .min(1)
    .max(1024)
    .optional()
    .describe("Compute threads of an engine; all cores but one if left out."),
  drain_ms: ms(3_600_000)
    .default(limits.worker_drain_ms)
    .describe("How long a worker that is to end waits for its streams to move to others, or to finish."),
  prefill_tokens: z.coerce
    .number()
    .int()
    .min(1)
    .max(limits.batch_tokens)
    .default(limits.prefill_tokens)
    .describe(
      "Prompt tokens of one engine step while answers are generated, at most: a step takes fewer where it would become " +
        "four times as long as one of answers alone.",
    ),
  weights_layout: z
    .enum(["file", "repacked"])
    .default("file")
    .describe(
      "How weights lie on processors: 'file' computes on the host copy itself; 'repacked' on a copy of each engine's own " +
        "in the layout that suits the processor, which makes prompts of quantised models faster, starts slower, and " +
        "takes the weights' memory twice.",
    ),
  engine_queue: z.coerce
    .number()
    .int()
    .min(1)
    .max(limits.engine_queue)
    .default(limits.engine_queue)
    .describe("Requests that may wait in an engine beyond its slots; more are refused as 'overloaded'."),
  engine_stall_ms: z.coerce
    .number()
    .int()
    .min(5_000)
    .default(60_000)
    .describe(
      "An engine that says nothing, or computes without getting on, for so long is ended. On a device one batch is one " +
        "step: the first ones may compile for half a minute.",
    ),
  engine_headroom_bytes: z.coerce
    .number()
    .int()
    .min(0)
    .default(1024 ** 3)
    .describe(
      "Memory of its own that an engine may take beyond what its model needs by estimate; 0: no limit.",
    ),
  adapters: z.coerce
    .number()
    .int()
    .min(1)
    .max(limits.engine_adapters)
    .default(limits.resident_adapters)
    .describe(
      "LoRA adapters that an instance holds in memory at once; when another one is wanted, the one that was used " +
        "longest ago goes.",
    ),
  standby_engines: z.coerce
    .number()
    .int()
    .min(0)
    .max(limits.standby_engines)
    .default(1)
    .describe("Engine processes started ahead of the loads that will use them; 0 starts each with its load."),
  standby_skeletons: z.coerce
    .number()
    .int()
    .min(0)
    .max(limits.standby_skeletons)
    .default(1)
    .describe(
      "Models that are likely to come back, kept built without weights in a process each; 0 for none.",
    ),
});
export type WorkerConfig = z.infer<typeof workerConfig>;

export const config = z
  .strictObject({
    data_dir: z
      .string()
      .min(1)
      .default(".sllm")
      .describe("Folder of the database, checkpoints and identities."),
    cluster_token: secret
      .optional()
      .describe("Shared by gateways and workers; made and kept in the data folder by 'sllm up' if left out."),
    gateway: gatewayConfig.prefault({}),
    worker: workerConfig.prefault({}),
  })
  .superRefine((value, context) => {
    if (!isLoopback(value.gateway.host) && value.gateway.admin_token === undefined) {
      context.addIssue({
        code: "custom",
        path: ["gateway", "admin_token"],
        message: "is needed when the gateway listens beyond loopback",
      });
    }
  });
export type Config = z.infer<typeof config>;

/** True for addresses that only this machine reaches. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host === "[::1]" || /^127(\.\d{1,3}){3}$/.test(host);
}

type Settings = { [key: string]: unknown };

const sections = { gateway: gatewayConfig.shape, worker: workerConfig.shape } as const;
const plain = ["data_dir", "cluster_token"] as const;

/** Name of the variable of a setting: `gateway`, `port` -> SLLM_GATEWAY_PORT. */
export function variableName(...path: string[]): string {
  return `SLLM_${path.join("_").toUpperCase()}`;
}

/** Settings found in `SLLM_*` variables, unparsed. Variables that name no setting are ignored. */
export function settingsFromVariables(variables: Record<string, string | undefined>): Settings {
  const found: Settings = {};
  for (const name of plain) {
    const value = variables[variableName(name)];
    if (value !== undefined) found[name] = value;
  }
  for (const [section, shape] of Object.entries(sections)) {
    const inner: Settings = {};
    for (const name of Object.keys(shape)) {
      const value = variables[variableName(section, name)];
      if (value !== undefined) inner[name] = value;
    }
    if (Object.keys(inner).length > 0) found[section] = inner;
  }
  return found;
}

/** The variables that make a child process see the same settings. */
export function variablesFromConfig(value: Config): Record<string, string> {
  const variables: Record<string, string> = {};
  const put = (name: string, setting: unknown) => {
    if (setting === undefined) return;
    variables[name] = Array.isArray(setting) ? setting.join(",") : String(setting);
  };
  for (const name of plain) put(variableName(name), value[name]);
  for (const section of ["gateway", "worker"] as const) {
    for (const [name, setting] of Object.entries(value[section])) put(variableName(section, name), setting);
  }
  return variables;
}

/** Later layers win; sections are merged, lists are replaced. */
export function mergeSettings(...layers: Settings[]): Settings {
  const merged: Settings = {};
  for (const layer of layers) {
    for (const [key, value] of Object.entries(layer)) {
      const before = merged[key];
      merged[key] = isSection(before) && isSection(value) ? mergeSettings(before, value) : value;
    }
  }
  return merged;
}

function isSection(value: unknown): value is Settings {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** One problem with its setting's name, ready to print. */
export function configProblems(error: z.ZodError): string[] {
  return error.issues.map((issue) => {
    const path = issue.path.map(String);
    const variable = path.length > 0 ? ` (${variableName(...path)})` : "";
    return `${path.join(".") || "settings"}${variable}: ${issue.message}`;
  });
}
