/** The experiments as Markdown: one table per case, with the ratios that the goals are about. Pure. */
import type { CaseResult } from "./measure.ts";

export interface CaseReport {
  readonly title: string;
  readonly results: readonly CaseResult[];
  /** No schedule has a smaller 99th percentile; null where it was not computed. */
  readonly bound_ms: number | null;
  /** That of a schedule which knows every request beforehand; null where it was not computed. */
  readonly reached_ms: number | null;
}

const s = (ms: number) => (ms / 1_000).toFixed(ms < 9_995 ? 2 : 1);

/** Start-up times in seconds. */
export function caseTable({ title, results, bound_ms, reached_ms }: CaseReport): string {
  const ours = results.find(({ name }) => name === "startup-optimal");
  const rows = results.map((result) => {
    const { startup_ms, pause_ms, loads } = result;
    const ratio = ours === undefined ? "" : (startup_ms.p99 / ours.startup_ms.p99).toFixed(2);
    const cells = [
      result.name,
      ...[startup_ms.mean, startup_ms.p50, startup_ms.p95, startup_ms.p99].map(s),
      ...[ratio, `${(100 * result.share_served).toFixed(1)} %`, result.device_hours.toFixed(1)],
      ...[loads.host, loads.disk, loads.network, result.migrations, result.preemptions].map(String),
      result.migrations + result.preemptions === 0 ? "-" : s(pause_ms.p99),
    ];
    return `| ${cells.join(" | ")} |`;
  });
  const count = results[0]?.requests ?? 0;
  const bound = bound_ms === null ? "" : ` No schedule has a P99 below ${s(bound_ms)} s.`;
  const reached =
    reached_ms === null ? "" : ` One that knows them all beforehand reaches ${s(reached_ms)} s.`;
  return [
    `### ${title}`,
    "",
    `${count} requests.${bound}${reached}`,
    "",
    "| policy | mean | P50 | P95 | P99 | P99 to ours | served | device-hours | memory | disk | network | moved | preempted | pause P99 |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ...rows,
    "",
  ].join("\n");
}

/** One line per run, for whoever wants to look closer. */
export function rawRows(results: readonly CaseResult[]): string {
  const lines = results.flatMap(({ case_name, name, runs }) =>
    runs.map(({ seed, summary }) => {
      const { startup_ms, ttft_ms, loads } = summary;
      return [
        ...[
          `"${case_name}"`,
          `"${name}"`,
          seed,
          summary.requests,
          summary.served,
          summary.late,
          summary.refused,
        ],
        ...[
          startup_ms.mean,
          startup_ms.p50,
          startup_ms.p95,
          startup_ms.p99,
          startup_ms.max,
          ttft_ms.mean,
          ttft_ms.p99,
        ],
        ...[
          summary.device_hours,
          loads.host,
          loads.disk,
          loads.origin,
          summary.migrations,
          summary.preemptions,
        ],
      ].join(",");
    }),
  );
  const columns = [
    "case,policy,seed,requests,served,late,refused,startup_mean_ms,startup_p50_ms,startup_p95_ms,startup_p99_ms",
    "startup_max_ms,ttft_mean_ms,ttft_p99_ms,device_hours,loads_memory,loads_disk,loads_network,migrations,preemptions",
  ].join(",");
  return `${[columns, ...lines].join("\n")}\n`;
}
