/** Requests for a simulation, from a trace or made up, by the flags that `simulate` and `plan` share. */
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { gunzipSync } from "node:zlib";
import type { ArgsDef } from "citty";
import {
  functionColumns,
  gammaTrace,
  gsm8k,
  headerOf,
  llmColumns,
  modelsOf,
  publishedColumns,
  type RequestTrace,
  readFunctionsTrace,
  readLlmTrace,
} from "../../../gateway/simulator/simulator.ts";
import type { SimulatedCluster } from "../../../schema/simulation.ts";
import type { Arguments } from "../command.ts";
import { CommandFailure, UsageError } from "../failure.ts";

export const workloadArgs = {
  trace: {
    type: "string",
    valueHint: "file",
    description: "CSV of requests or of calls per minute, .gz too",
  },
  speed: { type: "string", valueHint: "factor", description: "Times of the trace are divided by it (1)" },
  "from-minute": {
    type: "string",
    valueHint: "minute",
    description: "Begin of the window of a trace of calls (480)",
  },
  minutes: { type: "string", valueHint: "count", description: "Length of that window (30)" },
  "most-per-minute": {
    type: "string",
    valueHint: "count",
    description: "Leave out functions called more often (60)",
  },
  rps: { type: "string", valueHint: "rate", description: "Without a trace: requests per second (1)" },
  cv: { type: "string", valueHint: "number", description: "Variation of their intervals; 1 is Poisson (8)" },
  zipf: {
    type: "string",
    valueHint: "exponent",
    description: "How unevenly models are asked for; 0: all alike (0.9)",
  },
  duration: { type: "string", valueHint: "time", description: "How long requests come (1h)" },
  "per-model": { type: "boolean", description: "Every model has bursts of its own, instead of all together" },
  seed: { type: "string", valueHint: "number", description: "Decides all that is left to chance (1)" },
} as const satisfies ArgsDef;

const largestSeed = 2 ** 31 - 1;

export function seedOf(args: Arguments): number {
  return args.count("seed", 0, largestSeed) ?? 1;
}

/** The requests. Throws CommandFailure for a file that cannot be read, `trace_invalid` for one with bad rows. */
export function readWorkload(args: Arguments, cluster: SimulatedCluster, seed: number): RequestTrace {
  const models = modelsOf(cluster);
  const zipf = numberOf(args, "zipf", 0, 10) ?? 0.9;
  const file = args.text("trace");
  if (file === undefined) {
    const duration_ms = args.duration("duration") ?? 3_600_000;
    const stream = args.isOn("per-model") ? "per-model" : "aggregate";
    const requests_per_s = numberOf(args, "rps", 0.001, 100_000) ?? 1;
    const cv = numberOf(args, "cv", 0.05, 100) ?? 8;
    return gammaTrace({ requests_per_s, cv, zipf, duration_ms, stream, lengths: gsm8k }, models.length, seed);
  }
  const text = readText(file);
  const name = basename(file);
  const header = headerOf(name, text);
  if (header.includes(functionColumns.required[2])) {
    return readFunctionsTrace(name, text, {
      models: models.length,
      from_minute: args.count("from-minute", 0, 1_439) ?? 480,
      window_minutes: args.count("minutes", 1, 1_440) ?? 30,
      most_per_minute: args.count("most-per-minute", 1, 1_000_000) ?? 60,
      ...{ without_timers: false, lengths: gsm8k, seed },
    });
  }
  const known: readonly string[] = [...llmColumns.required, ...publishedColumns.required, "model"];
  if (!header.some((column) => known.includes(column))) {
    throw new CommandFailure(`${name}:1: no column is known`, {
      advice: `Requests have ${llmColumns.required.join(", ")} or ${publishedColumns.required.join(", ")}; calls have ${functionColumns.required.join(", ")}.`,
    });
  }
  const speed = numberOf(args, "speed", 0.001, 1_000) ?? 1;
  return readLlmTrace(name, text, { models: models.map(({ model_id }) => model_id), speed, zipf, seed });
}

function readText(file: string): string {
  try {
    const bytes = readFileSync(file);
    return (file.endsWith(".gz") ? gunzipSync(bytes) : bytes).toString("utf8");
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new CommandFailure(`${file} cannot be read: ${reason}`, { cause: error });
  }
}

/** A number within bounds; undefined when it was not given. */
function numberOf(args: Arguments, name: string, min: number, max: number): number | undefined {
  const text = args.text(name);
  if (text === undefined) return undefined;
  const value = Number(text);
  if (text.trim() !== "" && value >= min && value <= max) return value;
  throw new UsageError(`--${name} takes a number from ${min} to ${max}, not '${text}'`);
}
