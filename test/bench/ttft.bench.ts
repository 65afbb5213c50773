/**
 * Time to first token over public HTTP, from zero and warm: ours through gateway and worker, and llama-server in router
 * mode with as many threads, interleaved. README.md beside this file says how to read it.
 *
 *   npm run bench -- ttft [--json] [--quick] [--rounds <n>] [--model <name>]...
 */
import { existsSync } from "node:fs";
import { cpus } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { repositoryRoot } from "../support/processes.ts";
import { type Case, caseNames, prepareCase, sampleName } from "./load/cases.ts";
import { openResults } from "./load/raw-runs.ts";
import { goalsText } from "./load/report-text.ts";
import { machine } from "./machine.ts";
import { llamaServer } from "./peers/build-llama-server.mjs";
import { measureModel } from "./ttft/measure.ts";
import { reportTtft, type TtftReport, ttftGoals, ttftText } from "./ttft/report.ts";

const { values } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    quick: { type: "boolean", default: false },
    rounds: { type: "string" },
    model: { type: "string", multiple: true },
  },
});
const rounds = Number(values.rounds ?? (values.quick ? 3 : 10));
if (!Number.isInteger(rounds) || rounds < 1 || rounds > 100) throw new RangeError("--rounds: 1 to 100");
const say = (text: string) => (values.json ? process.stderr.write(`${text}\n`) : console.log(text));
const context_tokens = 256;

const router = existsSync(llamaServer) ? llamaServer : null;
if (router === null) {
  say("peer llama-server: skipped, not built; node test/bench/peers/build-llama-server.mjs builds it");
}
const results = openResults("ttft");
const facts = machine();
results.record("machine", facts);
say(`${JSON.stringify(facts)}\nraw runs: ${path.relative(repositoryRoot, results.file)}`);

const names =
  values.model ?? [sampleName, ...caseNames].filter((name) => !values.quick || name !== "random-4gb");
const reports: TtftReport[] = [];
for (const name of names) {
  const it: Case = await prepareCase(name, say);
  const threads = cpus().length;
  const record = (round: object) => results.record("run", round);
  const measured = await measureModel(it, { rounds, threads, context_tokens, router, record });
  const kv_bytes = it.manifest.model.kv_bytes_per_token * context_tokens;
  const report = reportTtft({ model: name, weights_bytes: it.manifest.weights.bytes, kv_bytes }, measured);
  say(ttftText(report));
  reports.push(report);
}
const goals = ttftGoals(reports);
say(goalsText(goals));
if (values.json)
  console.log(JSON.stringify({ benchmark: "ttft", machine: facts, rounds, rows: reports, goals }));
