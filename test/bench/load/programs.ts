/** Runs the native programs of the load benchmark, each in its own process, and reads the JSON that they print. */
import { spawnSync } from "node:child_process";
import path from "node:path";
import { engineLibrariesPath } from "../../support/native.ts";
import { repositoryRoot } from "../../support/processes.ts";
import type { Case } from "./cases.ts";

/** Short, so that the first token tells of loading rather than of computing. */
export const prompt = "ROMEO:";
const buildFolder = path.join(repositoryRoot, "native/build");

/** Lines of JSON that a program printed. Throws with its words when it fails. */
function lines<T>(program: string, args: readonly string[]): T[] {
  // Peers compute with the very code that ours does.
  const env = { ...process.env, SLLM_ENGINE_LIBRARIES: engineLibrariesPath };
  const result = spawnSync(program, args, { encoding: "utf8", maxBuffer: 1 << 24, env });
  if (result.error) throw result.error;
  if (result.status !== 0) {
    throw new Error(`${path.basename(program)} ${args.join(" ")}: ${result.stderr || result.signal}`);
  }
  return result.stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as T);
}

function last<T>(values: readonly T[]): T {
  const value = values.at(-1);
  if (value === undefined) throw new Error("a program printed nothing");
  return value;
}

const native = (name: string) => path.join(buildFolder, name);

export interface CeilingSetting {
  readonly method: "threads" | "io_uring";
  readonly block_bytes: number;
  readonly in_flight: number;
}
export interface Ceiling extends CeilingSetting {
  readonly bytes: number;
  readonly ms: number;
  readonly gbps: number;
  readonly cpu_ms: number;
}

/** One reading of the file with O_DIRECT into memory that is there. */
export function ceiling(file: string, { method, block_bytes, in_flight }: CeilingSetting): Ceiling {
  const args = [file, method, String(block_bytes), String(in_flight)];
  return last(lines<Ceiling>(native("sllm_bench_ceiling"), args));
}

/** The readings of all settings; the last one is the fastest once more. */
export function ceilingSweep(file: string): Ceiling[] {
  return lines<Ceiling>(native("sllm_bench_ceiling"), ["--sweep", file]);
}

/** A file system may keep a few pages; more of them would make a cold start warm. */
const residentPartMax = 0.001;

/** Drops the file from the page cache. Throws when mincore still finds it there. */
export function evict(file: string, bytes: number): void {
  let resident = Number.POSITIVE_INFINITY;
  for (let attempt = 0; attempt < 5; attempt++) {
    const args = ["--evict-check", file];
    resident = last(lines<{ resident_bytes: number }>(native("sllm_bench_ceiling"), args)).resident_bytes;
    if (resident <= bytes * residentPartMax) return;
  }
  throw new Error(`${resident} bytes of ${file} stay in the page cache: something else has it mapped`);
}

export type LoadMode = "mmap" | "none" | "dio";
export const loadModes: readonly LoadMode[] = ["dio", "none", "mmap"];

export interface PlainOutcome {
  readonly load_ms: number;
  readonly first_token_ms: number;
  /** A prompt of the same length, when nothing has to be loaded any more. */
  readonly again_ms: number;
  /** Memory of the process that is mapped after the load: with mmap the pages of the file as well. */
  readonly resident_bytes: number;
  readonly cpu_ms: number;
}

/** A load by libllama itself. */
export function plain(gguf: string, mode: LoadMode): PlainOutcome {
  return last(lines<PlainOutcome>(native("sllm_bench_plain"), [gguf, prompt, "1", mode]));
}

/** Time that libllama takes to build the vocabulary of a model, its backends loaded. */
export function vocabularyMs(gguf: string): number {
  const args = ["--vocabulary", gguf];
  return last(lines<{ vocabulary_ms: number }>(native("sllm_bench_plain"), args)).vocabulary_ms;
}

export const ablationSteps = [
  "by_tensor",
  "bulk",
  "direct",
  "in_flight",
  "prefaulted",
  "huge_pages",
  "pipeline",
] as const;
export type AblationStep = (typeof ablationSteps)[number];

export interface AblationOutcome {
  readonly step: AblationStep;
  readonly bytes: number;
  readonly read_ms: number;
  readonly verify_ms: number;
  readonly build_ms: number;
  readonly total_ms: number;
  readonly cpu_ms: number;
}

/** One of the ways to load; see native/test/bench_ablation.cc. */
export function ablate(step: AblationStep, { weights, header, plan }: Case): AblationOutcome {
  const args = [step, weights, header, engineLibrariesPath, plan];
  return last(lines<AblationOutcome>(native("sllm_bench_ablation"), args));
}
