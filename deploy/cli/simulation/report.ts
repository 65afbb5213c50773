/** What simulations came to, as a table for people. Pure. */
import type { Summary } from "../../../gateway/simulator/simulator.ts";
import { formatTable } from "../terminal/table.ts";

export interface NamedSummary {
  readonly name: string;
  readonly summary: Summary;
}

/** Times in seconds; one line per case. */
export function formatSummaries(cases: readonly NamedSummary[]): string {
  const right = (title: string) => ({ title, align: "right" }) as const;
  return formatTable(
    [
      { title: "POLICY" },
      ...["SERVED", "STARTUP MEAN", "P50", "P95", "P99", "TTFT MEAN", "P99", "DEVICE-HOURS"].map(right),
      ...["STARTS", "MEMORY", "DISK", "NETWORK", "MOVED", "PREEMPTED"].map(right),
    ],
    cases.map(({ name, summary }) => [
      name,
      `${(100 * summary.share_served).toFixed(1)} %`,
      ...[
        summary.startup_ms.mean,
        summary.startup_ms.p50,
        summary.startup_ms.p95,
        summary.startup_ms.p99,
      ].map(seconds),
      ...[summary.ttft_ms.mean, summary.ttft_ms.p99].map(seconds),
      summary.device_hours.toFixed(2),
      ...[summary.starts, summary.loads.host, summary.loads.disk].map(String),
      String(summary.loads.peer + summary.loads.origin),
      ...[summary.migrations, summary.preemptions].map(String),
    ]),
  );
}

export function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(ms < 10_000 ? 3 : 1)} s`;
}
