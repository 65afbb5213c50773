/**
 * Traces of serverless functions with calls per minute, such as Azure's of 2019: each of some functions, drawn alike, is
 * one model, and its calls of a minute lie anywhere in it. Lengths come from elsewhere, since functions have none.
 */
import { SeededRandom } from "../random.ts";
import { type RequestTrace, type TraceRow, toTrace } from "../trace.ts";
import { badTrace, type CsvRow, numberIn, readCsv } from "./csv.ts";
import type { Lengths } from "./lengths.ts";

const minutes = "minute:count pairs (minute 480..959 of the day)";
export const functionColumns = {
  required: ["func_rank", "trigger", minutes],
  optional: ["app_idx", "total_8h", "avg_duration_ms"],
} as const;

export interface FunctionsTraceOptions {
  readonly models: number;
  readonly from_minute: number;
  readonly window_minutes: number;
  /** Functions with more calls in any minute of the window are left out; so are those without one. */
  readonly most_per_minute: number;
  /** Without those that a clock calls. */
  readonly without_timers: boolean;
  readonly lengths: Lengths;
  readonly seed: number;
}

/** Throws `trace_invalid` naming file and line, also where fewer functions are active than there are models. */
export function readFunctionsTrace(file: string, text: string, options: FunctionsTraceOptions): RequestTrace {
  const { models, from_minute, window_minutes, seed, lengths } = options;
  const random = new SeededRandom(seed).fork("workload");
  const inWindow = readCsv(file, text, functionColumns)
    .filter((row) => !(options.without_timers && row.cells.trigger === "timer"))
    .map((row) => countsOf(file, row).filter(([m]) => m >= from_minute && m < from_minute + window_minutes))
    .filter((counts) => counts.length > 0 && counts.every(([, count]) => count <= options.most_per_minute));
  if (inWindow.length < models) {
    throw badTrace(
      file,
      1,
      `${inWindow.length} functions are active in the window, the cluster has ${models} models`,
    );
  }
  const chosen = shuffled(inWindow, random.fork("choice")).slice(0, models);
  const rows = chosen.flatMap((counts, model): TraceRow[] => {
    const own = random.fork(`model ${model}`);
    return counts.flatMap(([minute, count]) =>
      Array.from({ length: count }, () => {
        const arrival_ms = (minute - from_minute + own.next()) * 60_000;
        return { arrival_ms, model, ...lengths.draw(own) };
      }),
    );
  });
  return toTrace(rows);
}

/** Pairs of minute and calls. */
function countsOf(file: string, row: CsvRow): (readonly [minute: number, count: number])[] {
  const text = row.cells[minutes] ?? "";
  return text
    .split(" ")
    .filter((pair) => pair !== "")
    .map((pair) => {
      const [minute = "", count = ""] = pair.split(":");
      const cells = { minute, count };
      const number = (name: string) => numberIn(file, { line: row.line, cells }, name, 0, true);
      return [number("minute"), number("count")] as const;
    });
}

function shuffled<T>(items: readonly T[], random: SeededRandom): T[] {
  const all = [...items];
  for (let i = all.length - 1; i > 0; i--) {
    const k = random.below(i + 1);
    const [a, b] = [all[i], all[k]];
    if (a !== undefined && b !== undefined) [all[i], all[k]] = [b, a];
  }
  return all;
}
