/**
 * Loading speed and memory: our starts from disk and from host memory against the disk's own ceiling, against other
 * loaders on the same model, and step by step (ablation). README.md beside this file says how to read it.
 *
 *   npm run bench -- load [--json] [--quick] [--pairs <n>] [--minutes <n>] [--case <name>]...
 *                           [--peer <name>]... [--only pairs|ablation]
 *                           [--ceiling <method>,<block_bytes>,<in_flight>]
 *   npm run bench -- load [--json] --from <raw results>...
 */
import { loadavg } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { repositoryRoot } from "../support/processes.ts";
import { reportAblation } from "./load/ablation-report.ts";
import { knownPeers, reportCase, rowsOfCase } from "./load/case-report.ts";
import { type Case, caseNames, prepareCase } from "./load/cases.ts";
import { askFio } from "./load/fio.ts";
import { goalsOf } from "./load/goals.ts";
import { measureAblation, measureCase, type Run } from "./load/measure.ts";
import { type Ceiling, type CeilingSetting, ceilingSweep, evict } from "./load/programs.ts";
import { type AblationRun, openResults, type RawRuns, readResults } from "./load/raw-runs.ts";
import { ablationText, caseText, goalsText } from "./load/report-text.ts";
import { machine } from "./machine.ts";

const { values } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    quick: { type: "boolean", default: false },
    pairs: { type: "string" },
    // A run ends within 20 minutes; no repetition begins later than this.
    minutes: { type: "string", default: "17" },
    case: { type: "string", multiple: true },
    peer: { type: "string", multiple: true, default: [...knownPeers] },
    only: { type: "string" },
    // As an earlier run has found it, to spare the search.
    ceiling: { type: "string" },
    from: { type: "string", multiple: true },
  },
});
const pairs = Number(values.pairs ?? (values.quick ? 3 : 10));
if (!Number.isInteger(pairs) || pairs < 1 || pairs > 100) throw new RangeError("--pairs: 1 to 100");
const mostMinutes = Number(values.minutes);
if (!(mostMinutes > 0 && mostMinutes <= 1000)) throw new RangeError("--minutes: up to 1000");
if (![undefined, "pairs", "ablation"].includes(values.only))
  throw new RangeError("--only: pairs or ablation");
const unknown = values.peer.find((name) => !knownPeers.some((known) => known === name));
if (unknown !== undefined) throw new RangeError(`--peer: one of ${knownPeers.join(", ")}`);
const say = (text: string) => (values.json ? process.stderr.write(`${text}\n`) : console.log(text));
const started = performance.now();

/** Measures the cases in turns of their own, each with its share of the time that is left. */
async function measureAll(cases: readonly Case[]): Promise<RawRuns & { readonly facts: object }> {
  const results = openResults("load");
  const before = machine();
  results.record("machine", before);
  say(`${JSON.stringify(before)}\nraw runs: ${path.relative(repositoryRoot, results.file)}`);
  const { ceiling, facts } = chooseCeiling(cases, results.record);
  const runs: Run[] = [];
  const ablations: AblationRun[] = [];
  for (const [index, it] of cases.entries()) {
    const left = started + mostMinutes * 60_000 - performance.now();
    const bytes = (of: readonly Case[]) => of.reduce((sum, c) => sum + c.manifest.weights.bytes, 0);
    // A slow case must not starve the others.
    const share = Math.min(1, Math.max(bytes([it]) / bytes(cases.slice(index)), 0.3));
    const until_ms = performance.now() + left * share;
    if (values.only !== "ablation") {
      const record = (run: object) => results.record("run", run);
      runs.push(...(await measureCase(it, { pairs, peers: values.peer, ceiling, until_ms, record, say })));
    }
    if (values.only !== "pairs") {
      measureAblation(it, Math.max(1, Math.floor(pairs / 3)), until_ms, (outcome) => {
        const run = { case: it.name, ...outcome };
        ablations.push(run);
        results.record("ablation", run);
      });
    }
  }
  const after = machine();
  results.record("machine", after);
  say(`load average before and after: ${JSON.stringify([before, after].map((of) => of.load_average))}`);
  return { runs, ablations, facts: { ...facts, machine: { ...before, load_average_after: loadavg() } } };
}

/** The reader's fastest setting on the smallest case, which is quick to read often; and what fio says to it. */
function chooseCeiling(cases: readonly Case[], record: (kind: "ceiling" | "fio", line: object) => void) {
  const [smallest] = cases.toSorted((a, b) => a.manifest.weights.bytes - b.manifest.weights.bytes);
  if (smallest === undefined) throw new Error("no case");
  if (values.ceiling !== undefined) {
    const ceiling = ceilingSetting(values.ceiling);
    return { ceiling, facts: { ceiling_setting: ceiling, fio: null } };
  }
  evict(smallest.weights, smallest.manifest.weights.bytes);
  const sweep = ceilingSweep(smallest.weights);
  for (const found of sweep) record("ceiling", found);
  const ceiling = sweep.at(-1) as Ceiling;
  const { method, block_bytes, in_flight } = ceiling;
  say(`ceiling: ${method}, blocks of ${block_bytes / 2 ** 20} MiB, ${in_flight} in flight`);
  const fio = askFio(smallest.weights, ceiling, say);
  if (fio !== null) {
    record("fio", fio);
    say(`fio: ${fio.gbps.toFixed(2)} GB/s, ${fio.to_ceiling.toFixed(2)} of the ceiling`);
  }
  return { ceiling, facts: { ceiling_setting: { method, block_bytes, in_flight }, fio } };
}

function ceilingSetting(text: string): CeilingSetting {
  const [, method, block, in_flight] = /^(threads|io_uring),(\d+),(\d+)$/.exec(text) ?? [];
  if (method === undefined)
    throw new RangeError("--ceiling: threads or io_uring, bytes of a block, requests");
  return {
    method: method === "threads" ? "threads" : "io_uring",
    block_bytes: Number(block),
    in_flight: Number(in_flight),
  };
}

const names = values.case ?? caseNames.filter((name) => !values.quick || name !== "random-4gb");
const cases: Case[] = [];
for (const name of names) cases.push(await prepareCase(name, say));
const { runs, ablations, facts } =
  values.from === undefined
    ? await measureAll(cases)
    : { ...readResults(values.from), facts: { from: values.from, machine: machine() } };

const reports = [];
const ablation = [];
for (const it of cases) {
  const own = runs.filter((run) => run.case === it.name);
  const rows = rowsOfCase
    .map((row) => reportCase(own, row, it.manifest.tensors.length))
    .filter((row) => row !== null);
  for (const row of rows) say(caseText(row));
  reports.push(...rows);
  const outcomes = ablations.filter((outcome) => outcome.case === it.name);
  const steps = reportAblation(it.name, outcomes, rows.find(({ tier }) => tier === "disk") ?? null);
  if (steps.length > 0) say(ablationText(steps));
  ablation.push(...steps);
}
const goals = goalsOf(reports);
say(goalsText(goals));
const minutes = (performance.now() - started) / 60_000;
say(`\n${minutes.toFixed(1)} minutes`);
if (values.json) {
  const ceiling_gbps = reports.find(({ tier }) => tier === "disk")?.ceiling_gbps ?? null;
  console.log(
    JSON.stringify({ benchmark: "load", ceiling_gbps, cases: reports, ablation, goals, ...facts, minutes }),
  );
}
