/** Figures of the benchmark of generation: medians over the rounds, ratios within them, goals. */
import type { Goal } from "../load/goals.ts";
import { median, pairedRatio } from "../statistics.ts";
import {
  type EngineRun,
  type JavaScriptCost,
  type SubjectName,
  streamCounts,
  subjectNames,
} from "./measure.ts";

/** One row: tokens per second of all answers together, null where a peer is missing; `streams` 0 is the prompt alone. */
export interface EngineCase {
  readonly model: string;
  readonly streams: number;
  readonly rounds: number;
  readonly ours_tps: number;
  readonly ours_repacked_tps: number | null;
  readonly bare_tps: number;
  readonly llama_server_tps: number | null;
  readonly bare_repacked_tps: number;
  readonly llama_server_repacked_tps: number | null;
  /** Medians of the rounds' own ratios of our speed over theirs. */
  readonly to: Readonly<Record<Exclude<SubjectName, "ours" | "ours_repacked">, number | null>>;
  /** The same of ours with repacked weights over llama-server as it comes, which repacks too. */
  readonly repacked_to_llama_server: number | null;
  /** Lowest and highest of the rounds' ratios to the bare loop. */
  readonly to_bare_range: readonly [number, number];
  /** What another layout of the weights brings the bare loop: its speed over that of the plain one. */
  readonly repacking_gain: number;
}

export function reportEngine(model: string, runs: readonly EngineRun[]): EngineCase[] {
  return [0, ...streamCounts].flatMap((streams) => {
    const of = (subject: SubjectName) =>
      runs
        .filter((run) => run.model === model && run.streams === streams && run.subject === subject)
        .map(({ tps }) => tps);
    const ours = of("ours");
    if (ours.length === 0) return [];
    const speed = (subject: SubjectName) => (of(subject).length > 0 ? median(of(subject)) : null);
    const ratio = (subject: SubjectName) => (of(subject).length > 0 ? pairedRatio(ours, of(subject)) : null);
    const bare = of("bare");
    const toBare = ours.map((tps, i) => tps / (bare[i] ?? Number.NaN));
    return {
      ...{ model, streams, rounds: ours.length },
      ours_tps: median(ours),
      ours_repacked_tps: speed("ours_repacked"),
      bare_tps: median(bare),
      llama_server_tps: speed("llama_server"),
      bare_repacked_tps: median(of("bare_repacked")),
      llama_server_repacked_tps: speed("llama_server_repacked"),
      to: {
        bare: pairedRatio(ours, bare),
        bare_repacked: pairedRatio(ours, of("bare_repacked")),
        llama_server: ratio("llama_server"),
        llama_server_repacked: ratio("llama_server_repacked"),
      },
      repacked_to_llama_server:
        of("ours_repacked").length > 0 && of("llama_server_repacked").length > 0
          ? pairedRatio(of("ours_repacked"), of("llama_server_repacked"))
          : null,
      to_bare_range: [Math.min(...toBare), Math.max(...toBare)] as const,
      repacking_gain: pairedRatio(of("bare_repacked"), bare),
    };
  });
}

export function engineText(cases: readonly EngineCase[]): string {
  const header = ["model", "work", ...subjectNames, "to bare", "to server", "repacking"];
  const rows = cases.map((row) => [
    row.model,
    row.streams === 0 ? "prompt" : `${row.streams} streams`,
    ...subjectNames.map((name) => row[`${name}_tps`]?.toFixed(1) ?? "-"),
    `${row.to.bare?.toFixed(3)} (${row.to_bare_range.map((ratio) => ratio.toFixed(2)).join("..")})`,
    row.to.llama_server?.toFixed(3) ?? "-",
    row.repacking_gain.toFixed(2),
  ]);
  const widths = header.map((name, i) => Math.max(name.length, ...rows.map((row) => row[i]?.length ?? 0)));
  const line = (cells: readonly string[]) => cells.map((cell, i) => cell.padStart(widths[i] ?? 0)).join("  ");
  return [line(header), ...rows.map(line)].join("\n");
}

export function javascriptText(model: string, { ffi, main_thread_busy }: JavaScriptCost): string {
  const border = `${ffi.p50_us.toFixed(2)} us at the median, ${ffi.p99_us.toFixed(2)} us at the 99th percentile`;
  const busy = `main thread busy ${(main_thread_busy * 100).toFixed(1)} % at 8 streams`;
  return `${model}: the border costs a token event ${border} (${ffi.events} events); ${busy}`;
}

/** Over all rows; the lowest ratio counts. */
export function engineGoals(cases: readonly EngineCase[]): Goal[] {
  const atLeast = (name: string, wanted: number, ratios: readonly (number | null)[]): Goal => {
    const known = ratios.filter((ratio) => ratio !== null);
    const figure = known.length === 0 ? null : Math.min(...known);
    return { name, wanted: `at least ${wanted}`, figure, met: figure === null ? null : figure >= wanted };
  };
  const server = cases.map(({ to }) => to.llama_server);
  const repacked = cases.map(({ repacked_to_llama_server }) => repacked_to_llama_server);
  return [
    atLeast(
      "every row: ours to the bare loop",
      0.97,
      cases.map(({ to }) => to.bare),
    ),
    atLeast("every row: ours to llama-server without repacking", 1, server),
    atLeast("every row: ours, repacked, to llama-server as it comes", 1, repacked),
  ];
}
