/**
 * Loading speed and memory: our start from disk and from host memory against the disk's own ceiling, against
 * libllama's load modes on the same model, and step by step (ablation). README.md beside this file says how to read it.
 *
 *   npm run bench -- load [--json] [--quick] [--pairs <n>] [--minutes <n>] [--case <name>]...
 */
import { appendFileSync, mkdirSync, readFileSync } from "node:fs";
import { cpus, loadavg, release, totalmem } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { repositoryRoot } from "../support/processes.ts";
import { type Case, caseNames, prepareCase } from "./load/cases.ts";
import { measureAblation, measureCase } from "./load/measure.ts";
import { fioGbps } from "./load/other-peers.ts";
import { type Ceiling, ceilingSweep, evict } from "./load/programs.ts";
import {
  type AblationReport,
  ablationText,
  type CaseReport,
  caseText,
  reportAblation,
  reportCase,
} from "./load/report.ts";

const { values } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    quick: { type: "boolean", default: false },
    pairs: { type: "string" },
    // A run ends within 20 minutes; no repetition begins later than this.
    minutes: { type: "string", default: "17" },
    case: { type: "string", multiple: true },
  },
});
const pairs = Number(values.pairs ?? (values.quick ? 3 : 10));
if (!Number.isInteger(pairs) || pairs < 1 || pairs > 100) throw new RangeError("--pairs: 1 to 100");
const mostMinutes = Number(values.minutes);
if (!(mostMinutes > 0 && mostMinutes <= 1000)) throw new RangeError("--minutes: up to 1000");
const names = values.case ?? caseNames.filter((name) => !values.quick || name !== "random-4gb");
const say = (text: string) => (values.json ? process.stderr.write(`${text}\n`) : console.log(text));

/** Raw runs, one JSON line each, so that every figure can be traced. */
function openResults(): { file: string; record: (kind: string, line: object) => void } {
  const folder = path.join(repositoryRoot, "test/bench/results");
  mkdirSync(folder, { recursive: true });
  const file = path.join(folder, `load-${new Date().toISOString().replaceAll(":", "-")}.jsonl`);
  return { file, record: (kind, line) => appendFileSync(file, `${JSON.stringify({ kind, ...line })}\n`) };
}

function machine(): object {
  const mount = readFileSync("/proc/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" "))
    .filter(([, at = "/-"]) => repositoryRoot.startsWith(at))
    .sort(([, a = ""], [, b = ""]) => b.length - a.length)[0];
  return {
    cores: cpus().length,
    processor: cpus()[0]?.model.trim() ?? "",
    memory_bytes: totalmem(),
    kernel: release(),
    disk: mount?.[0] ?? "",
    file_system: mount?.[2] ?? "",
    load_average: loadavg(),
  };
}

const started = performance.now();
const results = openResults();
const loadAverageBefore = loadavg();
const before = machine();
results.record("machine", before);
say(`${JSON.stringify(before)}\nraw runs: ${path.relative(repositoryRoot, results.file)}`);

const cases: Case[] = [];
for (const name of names) cases.push(await prepareCase(name, say));
const largest = cases[0];
if (largest === undefined) throw new Error("no case");
/** Small enough to try many settings on. */
const smallest = cases.at(-1) ?? largest;

evict(smallest.weights, smallest.manifest.weights.bytes);
const sweep = ceilingSweep(smallest.weights);
for (const found of sweep) results.record("ceiling", found);
const setting = sweep.at(-1) as Ceiling;
say(
  `ceiling: ${setting.method}, blocks of ${setting.block_bytes / 2 ** 20} MiB, ${setting.in_flight} in flight`,
);
const fio = fioGbps(largest.weights, setting, say);
if (fio !== null) say(`fio with the same setting: ${fio.toFixed(2)} GB/s`);

const reports: CaseReport[] = [];
const ablation: AblationReport[] = [];
for (const [index, it] of cases.entries()) {
  // Every case has its share of the time that is left, so that a slow one does not starve the others.
  const left = started + mostMinutes * 60_000 - performance.now();
  const share =
    it.manifest.weights.bytes / cases.slice(index).reduce((sum, c) => sum + c.manifest.weights.bytes, 0);
  const until_ms = performance.now() + left * Math.min(1, Math.max(share, 0.3));
  const record = (run: object) => results.record("run", run);
  const runs = await measureCase(it, { pairs, ceiling: setting, until_ms, record, say });
  for (const tier of ["disk", "host"] as const) {
    const report = reportCase(runs, tier, it.manifest.tensors.length);
    reports.push(report);
    say(caseText(report));
  }
  const rounds = Math.max(1, Math.floor(pairs / 3));
  const outcomes = measureAblation(it, rounds, until_ms, (outcome) => results.record("ablation", outcome));
  const rows = reportAblation(it.name, outcomes);
  ablation.push(...rows);
  say(ablationText(rows));
}
results.record("machine", machine());
const averages = [loadAverageBefore, loadavg()].map((of) => of.map((n) => n.toFixed(1)).join(" ")).join(", ");
const minutes = (performance.now() - started) / 60_000;
say(`\n${minutes.toFixed(1)} minutes; load average before and after: ${averages}`);
if (values.json) {
  console.log(
    JSON.stringify({
      benchmark: "load",
      ceiling_gbps: reports.find(({ tier }) => tier === "disk")?.ceiling_gbps,
      ceiling_setting: {
        method: setting.method,
        block_bytes: setting.block_bytes,
        in_flight: setting.in_flight,
      },
      fio_gbps: fio,
      cases: reports,
      ablation,
      machine: { ...before, load_average_after: loadavg() },
      minutes,
    }),
  );
}
