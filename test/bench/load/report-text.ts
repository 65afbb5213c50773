/** The figures of the load benchmark as text for people. */
import type { AblationReport } from "./ablation-report.ts";
import type { CaseReport } from "./case-report.ts";
import type { Goal } from "./goals.ts";

const ms = (value: number) => `${value.toFixed(value < 10 ? 1 : 0).padStart(6)} ms`;
const megabytes = (value: number) => `${(value / 1e6).toFixed(0)} MB`;
const percent = (value: number) => `${(value * 100).toFixed(0)} %`;

/** One row of a case: ours, the peers, the ceiling, memory. */
export function caseText(report: CaseReport): string {
  const { name, bytes, tensors, tier, from, pairs } = report;
  const what = `${name}, from ${tier} (${from.replaceAll("_", " ")})`;
  const lines = [`\n${what}: ${megabytes(bytes)} in ${tensors} tensors, ${pairs} repetitions`];
  lines.push(`${subjectText(report, "ours", report.ours_ms.p50)}   p95 ${ms(report.ours_ms.p95).trim()}`);
  for (const [peer, ready] of Object.entries(report.peers_ms)) {
    if (ready === null) continue;
    const tokens = report.first_token_times_as_fast[peer];
    const byToken = tokens === undefined ? "" : ` (${tokens.toFixed(2)} to the token)`;
    const speed = (report.times_as_fast[peer] ?? Number.NaN).toFixed(2);
    lines.push(`${subjectText(report, peer, ready)}   ours is ${speed} times as fast${byToken}`);
  }
  lines.push(...ceilingText(report), memoryText(report));
  return lines.join("\n");
}

function subjectText(report: CaseReport, subject: string, ready: number): string {
  const token = report.first_token_ms[subject];
  const steady = report.first_to_steady[subject];
  const first = token === undefined ? "" : `   first token ${ms(token)}`;
  const left = steady === undefined ? "" : `   first/steady ${steady.toFixed(2)}`;
  const cpu = `   ${(report.cpu_s_per_gb[subject] ?? Number.NaN).toFixed(2)} CPU s/GB`;
  return `  ${subject.padEnd(12)} ready ${ms(ready)}${first}${left}${cpu}`;
}

function ceilingText({ fraction_spread: f, ceiling_gbps, first_fraction }: CaseReport): string[] {
  if (f === null || ceiling_gbps === null || first_fraction === null) return [];
  return [
    `  ceiling ${ceiling_gbps.toFixed(2)} GB/s; ours reaches ${percent(f.median)} of it ` +
      `(min ${percent(f.min)}, quartiles ${percent(f.q1)} and ${percent(f.q3)}, max ${percent(f.max)}; ` +
      `first pair ${percent(first_fraction)})`,
  ];
}

function memoryText(report: CaseReport): string {
  return (
    `  copied ${megabytes(report.bytes_copied)}; ${megabytes(report.private_growth_bytes)} of memory beyond the arena ` +
    `(a full KV cache is ${megabytes(report.kv_bytes)}); model build ${ms(report.build_ms).trim()}, ` +
    `then waiting ${ms(report.wait_ms).trim()}`
  );
}

/** The ablation of one case. */
export function ablationText(rows: readonly AblationReport[]): string {
  const part = (value: number | null) => (value === null ? "        -" : ms(value));
  const lines = rows.map(
    (row) =>
      `  ${row.step.padEnd(11)} ${ms(row.total_ms)}   read ${part(row.read_ms)}, verify ${part(row.verify_ms)},` +
      ` build ${part(row.build_ms)}   ${row.gbps.toFixed(2)} GB/s   ${row.gain.toFixed(2)}x` +
      `   ${row.cpu_s_per_gb.toFixed(2)} CPU s/GB`,
  );
  return [`\nablation, ${rows[0]?.case}: each step adds one idea to the one before`, ...lines].join("\n");
}

/** The goals beside what was measured. */
export function goalsText(goals: readonly Goal[]): string {
  const verdict = (met: boolean | null) => (met === null ? "not measured" : met ? "met" : "NOT met");
  const lines = goals.map(({ name, wanted, figure, met }) => {
    const found = figure === null ? "-" : figure.toPrecision(3).replace(/\.?0+$/, "");
    return `  ${verdict(met).padEnd(13)} ${name.padEnd(64)} ${found.padStart(8)}   wanted ${wanted}`;
  });
  return ["\ngoals", ...lines].join("\n");
}
