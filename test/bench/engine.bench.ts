/**
 * Speed of generation: our engine process against a bare loop over llama_decode and llama-server, with the same threads
 * on the same model, in turns. README.md beside this file says how to read it.
 *
 *   npm run bench -- engine [--json] [--rounds <n>] [--threads <n>] [--model <name>]...
 *   npm run bench -- engine [--json] --from <raw results>...
 */
import { existsSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { repositoryRoot } from "../support/processes.ts";
import { type EngineRun, type JavaScriptCost, measureEngine } from "./engine/measure.ts";
import { engineGoals, engineText, javascriptText, reportEngine } from "./engine/report.ts";
import { engineCaseNames, prepareCase } from "./load/cases.ts";
import { openResults } from "./load/raw-runs.ts";
import { goalsText } from "./load/report-text.ts";
import { machine } from "./machine.ts";
import { llamaServer } from "./peers/build-llama-server.mjs";

const { values } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    rounds: { type: "string", default: "5" },
    threads: { type: "string" },
    model: { type: "string", multiple: true, default: [...engineCaseNames] },
    from: { type: "string", multiple: true },
  },
});
const rounds = Number(values.rounds);
if (!Number.isInteger(rounds) || rounds < 1 || rounds > 100) throw new RangeError("--rounds: 1 to 100");
// As many as a worker takes by default: one processor is left to everything that does not compute.
const threads = Number(values.threads ?? Math.max(1, availableParallelism() - 1));
if (!Number.isInteger(threads) || threads < 1) throw new RangeError("--threads: 1 or more");
const say = (text: string) => (values.json ? process.stderr.write(`${text}\n`) : console.log(text));

const facts = machine();
const javascript: Record<string, JavaScriptCost> = {};
const runs = values.from === undefined ? await measureAll() : readRuns(values.from);
const cases = values.model.flatMap((model) => reportEngine(model, runs));
say(`\ntokens per second, medians\n${engineText(cases)}`);
for (const [model, cost] of Object.entries(javascript)) say(javascriptText(model, cost));
const goals = engineGoals(cases);
say(goalsText(goals));
if (values.json) {
  console.log(JSON.stringify({ benchmark: "engine", threads, cases, javascript, goals, machine: facts }));
}

async function measureAll(): Promise<EngineRun[]> {
  const server = existsSync(llamaServer) ? llamaServer : null;
  if (server === null) {
    say("peer llama-server: skipped, not built; node test/bench/peers/build-llama-server.mjs builds it");
  }
  const results = openResults("engine");
  results.record("machine", { ...facts, threads });
  say(`${JSON.stringify(facts)}\nraw runs: ${path.relative(repositoryRoot, results.file)}`);
  const all: EngineRun[] = [];
  for (const model of values.model) {
    const it = await prepareCase(model, say);
    const record = (run: EngineRun) => results.record("run", run);
    const measured = await measureEngine(it, { rounds, threads, server, record });
    all.push(...measured.runs);
    javascript[model] = measured.javascript;
  }
  results.record("machine", machine());
  return all;
}

/** The runs of several measurements, in their order. */
function readRuns(files: readonly string[]): EngineRun[] {
  return files
    .flatMap((file) => readFileSync(file, "utf8").split("\n"))
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as { kind: string } & EngineRun)
    .filter(({ kind }) => kind === "run");
}
