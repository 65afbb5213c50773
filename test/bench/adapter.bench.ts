/**
 * Time until a LoRA adapter is ready for use: into the arena, from there into a running engine, and what the engine
 * library takes for the same file. README.md beside this file says how to read it.
 *
 *   npm run bench -- adapter [--json] [--bytes <n>] [--rounds <n>]
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { z } from "zod";
import { engineLibrariesPath } from "../support/native.ts";
import { repositoryRoot } from "../support/processes.ts";
import { machine } from "./machine.ts";
import { pairedRatio, summary } from "./statistics.ts";

const { values } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    bytes: { type: "string", default: "1000000000" },
    rounds: { type: "string", default: "5" },
  },
});
const say = (text: string) => (values.json ? process.stderr.write(`${text}\n`) : console.log(text));

const round = z.object({
  bytes: z.number(),
  read_ms: z.number(),
  add_ms: z.number(),
  first_ms: z.number(),
  next_ms: z.number(),
  library_ms: z.number(),
});
type Round = z.infer<typeof round>;

/** The adapter, its checkpoint and the base's lie in a folder of their own, which is gone afterwards. */
function measure(): Round[] {
  const folder = mkdtempSync(path.join(tmpdir(), "sllm-bench-adapter-"));
  try {
    const program = path.join(repositoryRoot, "native/build/sllm_bench_adapter");
    const env = { ...process.env, SLLM_ENGINE_LIBRARIES: engineLibrariesPath };
    const run = spawnSync(program, [folder, values.bytes, values.rounds], { encoding: "utf8", env });
    if (run.error) throw run.error;
    if (run.status !== 0) throw new Error(`sllm_bench_adapter: ${run.stderr || run.signal}`);
    return run.stdout
      .trim()
      .split("\n")
      .map((line) => round.parse(JSON.parse(line)));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

say(JSON.stringify(machine()));
const rounds = measure();
const column = (name: keyof Round) => rounds.map((one) => one[name]);
const ready = rounds.map(({ read_ms, add_ms }) => read_ms + add_ms);
const report = {
  bytes: rounds[0]?.bytes ?? 0,
  read_ms: summary(column("read_ms")),
  add_ms: summary(column("add_ms")),
  ready_ms: summary(ready),
  /** The first step with it and the next: what was put off until the first use would be in the first. */
  first_ms: summary(column("first_ms")),
  next_ms: summary(column("next_ms")),
  library_ms: summary(column("library_ms")),
  /** Below 1: ready from the page cache sooner than the library; and the same with the weights in the arena. */
  ready_to_library: pairedRatio(ready, column("library_ms")),
  add_to_library: pairedRatio(column("add_ms"), column("library_ms")),
};
for (const [name, value] of Object.entries(report)) say(`${name.padEnd(18)} ${JSON.stringify(value)}`);
if (values.json) console.log(JSON.stringify(report));
