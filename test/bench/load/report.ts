/** Turns the runs of the load benchmark into figures: the object of `--json` and the table. */
import { median, quantile, type Spread, spread } from "../statistics.ts";
import type { StartOutcome } from "./engine-process.ts";
import type { Run } from "./measure.ts";
import { type AblationOutcome, ablationSteps } from "./programs.ts";

interface Times {
  readonly p50: number;
  readonly p95: number;
}

export interface CaseReport {
  readonly name: string;
  readonly bytes: number;
  readonly tensors: number;
  readonly tier: "disk" | "host";
  readonly pairs: number;
  readonly ours_ms: Times;
  /** Median over the pairs of our bytes per second to the disk's; null from host memory, where no disk takes part. */
  readonly fraction_of_ceiling: number | null;
  readonly fraction_spread: Spread | null;
  readonly first_fraction: number | null;
  readonly ceiling_gbps: number | null;
  readonly peers_ms: Readonly<Record<string, number>>;
  /** The peer's time over ours, above 1 where we are faster: median over the repetitions. */
  readonly times_as_fast: Readonly<Record<string, number>>;
  /** From the start of the load to the first token of a short prompt. */
  readonly first_token_ms: Readonly<Record<string, number>>;
  readonly first_token_times_as_fast: Readonly<Record<string, number>>;
  /** Fractions of the ceiling that the peers reach. */
  readonly peers_fraction: Readonly<Record<string, number>>;
  readonly bytes_copied: number;
  readonly cpu_s_per_gb: Readonly<Record<string, number>>;
  readonly pss_beyond_weights_bytes: number;
  readonly kv_bytes: number;
  readonly anonymous_growth_bytes: number;
  readonly build_ms: number;
  readonly read_ms: number | null;
}

const bySubject = <T>(subjects: readonly string[], of: (subject: string) => T): Record<string, T> =>
  Object.fromEntries(subjects.map((subject) => [subject, of(subject)]));

const isNumber = (value: number | null): value is number => value !== null;

/** Figures of one case and tier. The runs are those of one measureCase. */
export function reportCase(all: readonly Run[], tier: "disk" | "host", tensors: number): CaseReport {
  const runs = all.filter((run) => run.tier === tier);
  const of = (subject: string) => runs.filter((run) => run.subject === subject);
  const mine = of("ours");
  const peers = [...new Set(runs.map(({ subject }) => subject))].filter((subject) => subject !== "ours");
  const fractions = (subject: string) =>
    of(subject).map(({ bytes, start, ceiling }) =>
      ceiling === null ? null : bytes / start.ready_ms / (ceiling.bytes / ceiling.ms),
    );
  const ready = (run: Run) => run.start.ready_ms;
  const firstToken = (run: Run) => run.start.first_token_ms ?? Number.NaN;
  const ratio = (peer: string, time: (run: Run) => number) =>
    median(of(peer).map((run, i) => time(run) / time(mine[i] ?? run)));
  const withTokens = peers.filter((peer) => of(peer).every(({ start }) => start.first_token_ms !== null));
  const details = mine.map((run) => run.details as StartOutcome);
  const known = fractions("ours").filter(isNumber);
  const ceilings = runs.flatMap(({ ceiling }) => (ceiling === null ? [] : [ceiling.gbps]));
  const reads = details.map(({ read_ms }) => read_ms).filter(isNumber);
  const bytes = mine[0]?.bytes ?? 0;
  return {
    name: all[0]?.case ?? "",
    bytes,
    tensors,
    tier,
    pairs: mine.length,
    ours_ms: { p50: quantile(mine.map(ready), 0.5), p95: quantile(mine.map(ready), 0.95) },
    fraction_of_ceiling: known.length === 0 ? null : median(known),
    fraction_spread: known.length === 0 ? null : spread(known),
    first_fraction: known[0] ?? null,
    ceiling_gbps: ceilings.length === 0 ? null : median(ceilings),
    peers_ms: bySubject(peers, (peer) => median(of(peer).map(ready))),
    times_as_fast: bySubject(peers, (peer) => ratio(peer, ready)),
    first_token_ms: bySubject(["ours", ...withTokens], (subject) => median(of(subject).map(firstToken))),
    first_token_times_as_fast: bySubject(withTokens, (peer) => ratio(peer, firstToken)),
    peers_fraction:
      tier === "host" ? {} : bySubject(peers, (peer) => median(fractions(peer).filter(isNumber))),
    bytes_copied: Math.max(...details.map((detail) => detail.bytes_copied)),
    cpu_s_per_gb: bySubject(["ours", ...peers], (subject) =>
      median(of(subject).map((run) => run.start.cpu_ms / 1e3 / (run.bytes / 1e9))),
    ),
    pss_beyond_weights_bytes: median(details.map((detail) => detail.pss_beyond_weights_bytes)),
    kv_bytes: median(details.map((detail) => detail.kv_bytes)),
    anonymous_growth_bytes: median(details.map((detail) => detail.anonymous_growth_bytes)),
    build_ms: median(details.map((detail) => detail.build_ms)),
    read_ms: reads.length === 0 ? null : median(reads),
  };
}

export interface AblationReport {
  readonly case: string;
  readonly step: string;
  readonly read_ms: number;
  readonly verify_ms: number;
  readonly build_ms: number;
  readonly total_ms: number;
  readonly gbps: number;
  /** How many times faster than the step before. */
  readonly gain: number;
  readonly cpu_s_per_gb: number;
}

export function reportAblation(name: string, outcomes: readonly AblationOutcome[]): AblationReport[] {
  let before = Number.NaN;
  return ablationSteps.map((step) => {
    const found = outcomes.filter((outcome) => outcome.step === step);
    const of = (key: "read_ms" | "verify_ms" | "build_ms" | "total_ms" | "cpu_ms") =>
      median(found.map((outcome) => outcome[key]));
    const gigabytes = (found[0]?.bytes ?? 0) / 1e9;
    const total_ms = of("total_ms");
    const gain = Number.isNaN(before) ? 1 : before / total_ms;
    before = total_ms;
    return {
      ...{ case: name, step, total_ms, gain },
      ...{ read_ms: of("read_ms"), verify_ms: of("verify_ms"), build_ms: of("build_ms") },
      gbps: gigabytes / (total_ms / 1e3),
      cpu_s_per_gb: of("cpu_ms") / 1e3 / gigabytes,
    };
  });
}

const ms = (value: number) => `${value.toFixed(0).padStart(6)} ms`;
const megabytes = (value: number) => `${(value / 1e6).toFixed(0)} MB`;

/** One case as text. */
export function caseText(report: CaseReport): string {
  const { tier, name, bytes, tensors, pairs, ours_ms, fraction_spread: f } = report;
  const lines = [`\n${name}, from ${tier}: ${megabytes(bytes)} in ${tensors} tensors, ${pairs} repetitions`];
  const row = (label: string, ready: number, rest: string) =>
    lines.push(`  ${label.padEnd(12)} ready ${ms(ready)}${rest}`);
  const token = (subject: string) => {
    const value = report.first_token_ms[subject];
    return value === undefined ? "" : `   first token ${ms(value)}`;
  };
  const cpu = (subject: string) => `   ${(report.cpu_s_per_gb[subject] ?? 0).toFixed(2)} CPU s/GB`;
  row("ours", ours_ms.p50, `${token("ours")}${cpu("ours")}   p95 ${ms(ours_ms.p95)}`);
  for (const [peer, ready] of Object.entries(report.peers_ms)) {
    const speed = `   ours is ${(report.times_as_fast[peer] ?? Number.NaN).toFixed(2)} times as fast`;
    const tokens = report.first_token_times_as_fast[peer];
    const byToken = tokens === undefined ? "" : ` (${tokens.toFixed(2)} to the token)`;
    row(peer, ready, `${token(peer)}${cpu(peer)}${speed}${byToken}`);
  }
  if (f !== null && report.ceiling_gbps !== null) {
    const part = (value: number) => `${(value * 100).toFixed(0)} %`;
    lines.push(
      `  ceiling ${report.ceiling_gbps.toFixed(2)} GB/s; ours reaches ${part(f.median)} of it ` +
        `(min ${part(f.min)}, quartiles ${part(f.q1)} and ${part(f.q3)}, max ${part(f.max)}; ` +
        `first pair ${part(report.first_fraction ?? Number.NaN)})`,
    );
  }
  lines.push(
    `  copied ${megabytes(report.bytes_copied)}; beyond the weights ${megabytes(report.pss_beyond_weights_bytes)} ` +
      `of PSS (a full KV cache is ${megabytes(report.kv_bytes)}); model build ${ms(report.build_ms).trim()}`,
  );
  return lines.join("\n");
}

export function ablationText(rows: readonly AblationReport[]): string {
  const lines = rows.map(
    (row) =>
      `  ${row.step.padEnd(11)} ${ms(row.total_ms)} = read ${ms(row.read_ms)} + verify ${ms(row.verify_ms)}` +
      ` + build ${ms(row.build_ms)}   ${row.gbps.toFixed(2)} GB/s   ${row.gain.toFixed(2)}x` +
      `   ${row.cpu_s_per_gb.toFixed(2)} CPU s/GB`,
  );
  return [`\nablation, ${rows[0]?.case}: each step adds one idea to the one before`, ...lines].join("\n");
}
