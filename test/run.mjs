/**
 * `npm test`: sets up what is missing and runs every test, or with a filter (`npm test -- e2e`, `npm test -- lock`)
 * a part of them. Failures are shown again at the end; the last line is `N passed, N failed, N skipped`, and the exit
 * status is 1 when anything failed or nothing ran. Runs on plain Node.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { findBun } from "../deploy/scripts/bun.mjs";
import { prepare } from "../deploy/scripts/prepare.mjs";
import { root } from "../deploy/scripts/repository.mjs";
import { endCommands, runCommand } from "./runner/command.mjs";
import { startPostgres } from "./runner/postgres.mjs";
import { addFailure, addResults, noResults, parseJunit, totalLine } from "./runner/results.mjs";
import { runLimit_ms, selectStages } from "./runner/stages.mjs";

/** Stages whose tests use the database server. */
const needDatabase = new Set(["contract", "integration", "e2e", "fault"]);

const total = noResults();
const reports = mkdtempSync(join(tmpdir(), "sllm-test-"));
const startedAt_ms = Date.now();
let isInterrupted = false;
let postgres = null;

async function main() {
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => interrupt(signal));
  try {
    await prepare();
    const chosen = selectStages(root, process.argv[2]);
    if (chosen.some((stage) => needDatabase.has(stage.name)))
      postgres = await startPostgres(findBun(root), root);
    for (const stage of chosen) {
      if (!isInterrupted) await runStage(stage);
    }
  } catch (error) {
    addFailure(total, "the run", error?.message ?? String(error));
  } finally {
    await postgres?.stop();
    rmSync(reports, { recursive: true, force: true });
  }
  for (const { name, text } of total.failures) process.stdout.write(`\nFAILED ${name}\n${indent(text)}\n`);
  process.exitCode = total.failed > 0 || total.passed === 0 ? 1 : 0;
  process.stdout.write(`\n${totalLine(total)}\n`);
}

/** Ends what runs; main() then reports what is known so far. */
function interrupt(signal) {
  isInterrupted = true;
  addFailure(total, "the run", `was ended by ${signal}`);
  endCommands();
}

/** Runs one stage, prints its counts and adds them to the total. */
async function runStage(stage) {
  process.stdout.write(`\n--- ${stage.name}\n`);
  const begin_ms = Date.now();
  const remaining_ms = runLimit_ms - (begin_ms - startedAt_ms);
  const bounded = { ...stage, limit_ms: Math.max(1, Math.min(stage.limit_ms, remaining_ms)) };
  const results = await runners[stage.kind](bounded);
  const seconds = ((Date.now() - begin_ms) / 1000).toFixed(1);
  process.stdout.write(`--- ${stage.name}: ${totalLine(results)} (${seconds} s)\n`);
  addResults(total, results);
}

const runners = { check: runCheck, ctest: runCtest, bun: runBun };

/** A tool that is right or wrong as a whole. */
async function runCheck({ name, command: [tool, ...args], limit_ms }) {
  const run = await runCommand([join(root, "node_modules/.bin", tool), ...args], { cwd: root, limit_ms });
  const results = noResults();
  if (run.status === 0) results.passed += 1;
  else addFailure(results, `${name} (${tool})`, describe(run, limit_ms));
  return results;
}

async function runCtest({ name, variant, limit_ms }) {
  const results = noResults();
  const { buildNative } = await import("../deploy/scripts/native.mjs");
  let build;
  try {
    const log = (line) => process.stdout.write(`${line}\n`);
    ({ build } = await buildNative(root, { variant, targets: ["all"] }, log));
  } catch (error) {
    addFailure(results, `${name} (build)`, error.message);
    return results;
  }
  const report = join(reports, `${name}.xml`);
  const run = await runCommand(
    [
      "ctest",
      "--test-dir",
      build,
      "--output-on-failure",
      "--output-junit",
      report,
      "--timeout",
      "120",
    ].concat(["--parallel", String(availableParallelism())]),
    { cwd: root, limit_ms },
  );
  return readReport(name, report, run, limit_ms);
}

async function runBun({ name, files, test_ms, limit_ms }) {
  const report = join(reports, `${name}.xml`);
  const options = [
    "--only-failures",
    `--timeout=${test_ms}`,
    "--reporter=junit",
    `--reporter-outfile=${report}`,
  ];
  const env = postgres === null ? {} : { SLLM_TEST_POSTGRES_URL: postgres.url };
  const paths = files.map((file) => `./${file}`);
  const run = await runCommand([findBun(root), "test", ...options, ...paths], { cwd: root, env, limit_ms });
  const results = readReport(name, report, run, limit_ms);
  // A file that fails to load has no place in the report; Bun counts it as an error.
  const errors = Number(/^\s*(\d+) errors?$/m.exec(run.output)?.[1] ?? 0);
  for (let i = 0; i < errors; i++)
    addFailure(results, `${name}: a file could not be run`, lastLines(run.output));
  return results;
}

/** The counts of a report, and a failure when the command failed without telling in it. */
function readReport(name, report, run, limit_ms) {
  const results = existsSync(report) ? parseJunit(readFileSync(report, "utf8")) : noResults();
  const isToldSo = results.failed > 0 || /^\s*[1-9]\d* errors?$/m.test(run.output);
  if (run.isHung || !existsSync(report) || (run.status !== 0 && !isToldSo)) {
    addFailure(results, name, describe(run, limit_ms));
  }
  return results;
}

function describe({ status, isHung, output }, limit_ms) {
  const end = isHung ? `did not end within ${Math.round(limit_ms / 1000)} s` : `ended with status ${status}`;
  return `${end}\n${lastLines(output)}`;
}

function lastLines(output) {
  return output.trimEnd().split("\n").slice(-40).join("\n");
}

function indent(text) {
  return text.replace(/^/gm, "  ");
}

await main();
