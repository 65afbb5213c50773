/**
 * The raw results: one JSON line per measurement, so that every figure can be traced and several short runs can be
 * reported as one.
 */
import { appendFileSync, mkdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { repositoryRoot } from "../../support/processes.ts";
import type { Run } from "./measure.ts";
import type { AblationOutcome } from "./programs.ts";

export interface AblationRun extends AblationOutcome {
  readonly case: string;
}

/** A line of a results file, as far as a report is made of it. */
type Line =
  | ({ kind: "run" } & Run)
  | ({ kind: "ablation" } & AblationRun)
  | { kind: "machine" | "ceiling" | "fio" };

export interface ResultsFile {
  readonly file: string;
  record(kind: "machine" | "ceiling" | "fio" | "run" | "ablation", line: object): void;
}

/** A new file in the git-ignored test/bench/results. */
export function openResults(benchmark: string): ResultsFile {
  const folder = path.join(repositoryRoot, "test/bench/results");
  mkdirSync(folder, { recursive: true });
  const file = path.join(folder, `${benchmark}-${new Date().toISOString().replaceAll(":", "-")}.jsonl`);
  return { file, record: (kind, line) => appendFileSync(file, `${JSON.stringify({ kind, ...line })}\n`) };
}

export interface RawRuns {
  readonly runs: readonly Run[];
  readonly ablations: readonly AblationRun[];
}

/** All of several files, in their order; see `wholeRepetitions`. */
export function readResults(files: readonly string[]): RawRuns {
  const parts = files.map((file) => {
    const lines = readFileSync(file, "utf8")
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as Line);
    return {
      runs: lines.filter((line) => line.kind === "run"),
      ablations: lines.filter((line) => line.kind === "ablation"),
    };
  });
  return {
    runs: wholeRepetitions(parts.map(({ runs }) => runs)),
    ablations: parts.flatMap(({ ablations }) => ablations),
  };
}

/**
 * The runs of several measurements as those of one: repetitions are counted on, and those that were cut off, which lack
 * a subject that others of the case have, are left out.
 */
export function wholeRepetitions(parts: readonly (readonly Run[])[]): Run[] {
  const repetitions = parts.flatMap((runs) => {
    const keys = [...new Set(runs.map(keyOf))];
    return keys.map((key) => runs.filter((run) => keyOf(run) === key));
  });
  const most = new Map<string, number>();
  for (const [first, ...rest] of repetitions) {
    if (first) most.set(first.case, Math.max(most.get(first.case) ?? 0, rest.length + 1));
  }
  const counted = new Map<string, number>();
  return repetitions.flatMap((runs) => {
    const name = runs[0]?.case ?? "";
    if (runs.length < (most.get(name) ?? 0)) return [];
    const repetition = counted.get(name) ?? 0;
    counted.set(name, repetition + 1);
    return runs.map((run) => ({ ...run, repetition }));
  });
}

function keyOf(run: Run): string {
  return `${run.case} ${run.repetition}`;
}
