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

/** All of several files, in their order; see `countedOn`. */
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
    runs: countedOn(parts.map(({ runs }) => runs)),
    ablations: parts.flatMap(({ ablations }) => ablations),
  };
}

/**
 * The runs of several measurements as those of one, their repetitions counted on. Peers that a repetition lacks, because
 * it was cut off or they were not asked for, do no harm; without a start of ours it is left out.
 */
export function countedOn(parts: readonly (readonly Run[])[]): Run[] {
  const counted = new Map<string, number>();
  return parts.flatMap((runs) =>
    [...new Set(runs.map(keyOf))].flatMap((key) => {
      const ofOne = runs.filter((run) => keyOf(run) === key);
      const name = ofOne[0]?.case ?? "";
      if (!ofOne.some(({ subject }) => subject === "ours")) return [];
      const repetition = counted.get(name) ?? 0;
      counted.set(name, repetition + 1);
      return ofOne.map((run) => ({ ...run, repetition }));
    }),
  );
}

function keyOf(run: Run): string {
  return `${run.case} ${run.repetition}`;
}
