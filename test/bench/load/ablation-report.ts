/** What each idea of loading brings on this machine: the steps of the ablation, and the store as the last one. */
import { median } from "../statistics.ts";
import type { CaseReport } from "./case-report.ts";
import { type AblationOutcome, ablationSteps } from "./programs.ts";

export interface AblationReport {
  readonly case: string;
  /** One of `ablationSteps`, or `store`: our whole start from disk in the pairs of the same run. */
  readonly step: string;
  /** Null where the step has no such part of its own. */
  readonly read_ms: number | null;
  readonly verify_ms: number | null;
  readonly build_ms: number | null;
  readonly total_ms: number;
  readonly gbps: number;
  /** How many times faster than the step before; 1 for the first. */
  readonly gain: number;
  readonly cpu_s_per_gb: number;
}

type Row = Omit<AblationReport, "gain" | "gbps">;

/** `disk`: the case's row from disk; null when the pairs were not measured. Empty without outcomes. */
export function reportAblation(
  name: string,
  outcomes: readonly AblationOutcome[],
  disk: CaseReport | null,
): AblationReport[] {
  const bytes = outcomes[0]?.bytes;
  if (bytes === undefined) return [];
  const rows: Row[] = ablationSteps.map((step) => {
    const found = outcomes.filter((outcome) => outcome.step === step);
    const of = (key: "read_ms" | "verify_ms" | "build_ms" | "total_ms" | "cpu_ms") =>
      median(found.map((outcome) => outcome[key]));
    const parts = { read_ms: of("read_ms"), verify_ms: of("verify_ms"), build_ms: of("build_ms") };
    const cpu_s_per_gb = of("cpu_ms") / 1e3 / (bytes / 1e9);
    return { case: name, step, ...parts, total_ms: of("total_ms"), cpu_s_per_gb };
  });
  if (disk !== null) {
    const parts = { read_ms: disk.read_ms, verify_ms: null, build_ms: disk.build_ms };
    const cpu_s_per_gb = disk.cpu_s_per_gb.ours ?? Number.NaN;
    rows.push({ case: name, step: "store", ...parts, total_ms: disk.ours_ms.p50, cpu_s_per_gb });
  }
  return rows.map((row, i) => ({
    ...row,
    gbps: bytes / 1e6 / row.total_ms,
    gain: (rows[i - 1]?.total_ms ?? row.total_ms) / row.total_ms,
  }));
}
