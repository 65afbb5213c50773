/** From runs to figures: fractions of pairs, medians, the keys of the JSON object. */
import { describe, expect, test } from "bun:test";
import { reportAblation } from "./ablation-report.ts";
import { type CaseReport, reportCase } from "./case-report.ts";
import type { StartOutcome, StartState } from "./engine-process.ts";
import { goalsOf } from "./goals.ts";
import type { Run } from "./measure.ts";
import { type AblationOutcome, ablationSteps } from "./programs.ts";
import { countedOn } from "./raw-runs.ts";

const bytes = 4e9;
const tensors = 165;

interface Wish {
  readonly repetition: number;
  readonly ready_ms: number;
  /** Of the reading just before; from host memory if left out. */
  readonly ceiling_ms?: number;
  readonly from?: StartState;
  readonly copied?: number;
}

function ours({ repetition, ready_ms, ceiling_ms, from = "standby", copied = 0 }: Wish): Run {
  const details: StartOutcome = {
    ...{ from, ready_ms, first_token_ms: ready_ms + 105, first_ms: 105, steady_ms: 100 },
    ...{ build_ms: 30, wait_ms: 5, read_ms: ceiling_ms === undefined ? null : ready_ms, direct_io: true },
    ...{ cpu_ms: 800, bytes_copied: copied, private_growth_bytes: 20e6, anonymous_growth_bytes: 10e6 },
    ...{ kv_bytes: 100e6, host_copy: null },
  };
  return {
    ...run("ours", repetition, ready_ms, ceiling_ms),
    from,
    vocabulary_ms: 40,
    start: details,
    details,
  };
}

function peer(subject: string, { repetition, ready_ms, ceiling_ms }: Wish): Run {
  return run(subject, repetition, ready_ms, ceiling_ms);
}

function run(subject: string, repetition: number, ready_ms: number, ceiling_ms?: number): Run {
  const setting = { method: "threads", block_bytes: 4096, in_flight: 1 } as const;
  return {
    ...{ case: "random-4gb", repetition, subject, bytes, from: "process", vocabulary_ms: null, details: {} },
    tier: ceiling_ms === undefined ? "host" : "disk",
    start: { ready_ms, first_token_ms: ready_ms + 100, steady_ms: 50, cpu_ms: 4000 },
    ceiling:
      ceiling_ms === undefined
        ? null
        : { ...setting, bytes, ms: ceiling_ms, gbps: bytes / ceiling_ms / 1e6, cpu_ms: 1 },
  };
}

function diskReport(runs: readonly Run[]): CaseReport {
  const report = reportCase(runs, { tier: "disk", from: "standby" }, tensors);
  if (report === null) throw new Error("no report");
  return report;
}

describe("the figures of a case", () => {
  const runs = [
    ours({ repetition: 0, ready_ms: 2000, ceiling_ms: 1000 }),
    peer("mmap", { repetition: 0, ready_ms: 4000, ceiling_ms: 1000 }),
    // The machine is three times slower from here on: pairs cancel that.
    ours({ repetition: 1, ready_ms: 6000, ceiling_ms: 3000 }),
    peer("mmap", { repetition: 1, ready_ms: 12_000, ceiling_ms: 3000 }),
    ours({ repetition: 2, ready_ms: 4000, ceiling_ms: 3000 }),
    peer("mmap", { repetition: 2, ready_ms: 12_000, ceiling_ms: 3000 }),
  ];

  test("have the median of the pairs' fractions, with its spread", () => {
    const { fraction_of_ceiling, fraction_spread, first_fraction } = diskReport(runs);
    expect(fraction_of_ceiling).toBe(0.5);
    expect(fraction_spread).toMatchObject({ min: 0.5, max: 0.75, runs: 3 });
    expect(first_fraction).toBe(0.5);
  });

  test("compare peers within a repetition", () => {
    expect(diskReport(runs).times_as_fast).toEqual({ mmap: 2 });
    expect(diskReport(runs.toReversed()).times_as_fast).toEqual({ mmap: 2 });
  });

  test("name the peers that were not there as null", () => {
    expect(diskReport(runs).peers_ms).toEqual({ mmap: 12_000, none: null, dio: null, safetensors: null });
  });

  test("carry the keys that readers of the JSON object rely on", () => {
    const { name, tier, ours_ms, bytes_copied } = diskReport(runs);
    expect({ name, tier, ours_ms, bytes_copied }).toEqual({
      ...{ name: "random-4gb", tier: "disk", bytes_copied: 0 },
      ours_ms: { p50: 4000, p95: 5800 },
    });
  });

  test("have no fraction from host memory, and the worst count of copied bytes", () => {
    const host = [
      ours({ repetition: 0, ready_ms: 5, from: "parked", copied: 0 }),
      ours({ repetition: 1, ready_ms: 7, from: "parked", copied: 3e9 }),
    ];
    const report = reportCase(host, { tier: "host", from: "parked" }, tensors);
    expect(report).toMatchObject({ fraction_of_ceiling: null, ceiling_gbps: null, bytes_copied: 3e9 });
  });

  test("relate a start from standby to the vocabulary's build, where it was measured", () => {
    const runs = [ours({ repetition: 0, ready_ms: 60 })];
    const goal = (report: CaseReport | null) =>
      goalsOf(report === null ? [] : [report]).find(({ name }) => name.includes("vocabulary"));
    const row = { tier: "host", from: "standby" } as const;
    expect(goal(reportCase(runs, row, tensors))).toMatchObject({ figure: 1.5, met: false });
    const unknown = runs.map((run) => ({ ...run, vocabulary_ms: null }));
    expect(goal(reportCase(unknown, row, tensors))?.met).toBeNull();
  });

  test("are none of a row that was not measured", () => {
    expect(reportCase(runs, { tier: "host", from: "skeleton" }, tensors)).toBeNull();
  });

  test("relate the first request to the steady state", () => {
    expect(diskReport(runs).first_to_steady).toEqual({ ours: 1.05, mmap: 2 });
  });
});

describe("goals", () => {
  const report = diskReport([
    ours({ repetition: 0, ready_ms: 1250, ceiling_ms: 1000 }),
    peer("mmap", { repetition: 0, ready_ms: 2500, ceiling_ms: 1000 }),
  ]);
  const named = (reports: readonly CaseReport[], part: string) => {
    const found = goalsOf(reports).find(({ name }) => name.includes(part));
    if (found === undefined) throw new Error(`no goal ${part}`);
    return found;
  };

  test("are missed below their bound and met above it", () => {
    expect(named([report], "fraction of the ceiling")).toMatchObject({ figure: 0.8, met: false });
    expect(named([report], "as fast as mmap")).toMatchObject({ figure: 2, met: true });
  });

  test("are neither when nothing was measured", () => {
    expect(named([report], "as fast as dio")).toMatchObject({ figure: null, met: null });
    expect(named([], "fraction of the ceiling").met).toBeNull();
  });

  test("take the worst of several figures", () => {
    const slower = { ...report, name: "many-small", times_as_fast: { mmap: 0.9 } };
    expect(named([report, slower], "fastest peer")).toMatchObject({ figure: 0.9, met: false });
  });
});

describe("several raw results as one", () => {
  const whole = [
    ours({ repetition: 0, ready_ms: 1, ceiling_ms: 1 }),
    peer("mmap", { repetition: 0, ready_ms: 2, ceiling_ms: 1 }),
  ];

  test("count repetitions on", () => {
    expect(countedOn([whole, whole]).map(({ repetition }) => repetition)).toEqual([0, 0, 1, 1]);
  });

  test("keep what a cut repetition has of ours, and nothing that has no start of ours beside it", () => {
    const cut = [ours({ repetition: 1, ready_ms: 3, ceiling_ms: 1 })];
    const alone = [peer("mmap", { repetition: 2, ready_ms: 3, ceiling_ms: 1 })];
    const kept = countedOn([[...whole, ...cut, ...alone], whole]);
    expect(kept.map(({ subject, repetition }) => `${subject} ${repetition}`)).toEqual([
      ...["ours 0", "mmap 0", "ours 1"],
      ...["ours 2", "mmap 2"],
    ]);
    expect(diskReport(kept).times_as_fast).toEqual({ mmap: 2 });
  });
});

describe("the ablation", () => {
  const outcomes: AblationOutcome[] = ablationSteps.map((step, i) => {
    const total_ms = 8000 / 2 ** i;
    return { step, bytes, read_ms: total_ms, verify_ms: 0, build_ms: 0, total_ms, cpu_ms: 400 };
  });

  test("says how many times faster each step is than the one before, the store last", () => {
    const disk = diskReport([ours({ repetition: 0, ready_ms: 250, ceiling_ms: 1000 })]);
    const rows = reportAblation("random-4gb", outcomes, disk);
    expect(rows.map(({ step }) => step)).toEqual([...ablationSteps, "store"]);
    expect(rows.map(({ gain }) => gain)).toEqual([1, 2, 2, 2, 2, 2, 2, 0.5]);
  });

  test("is empty when it was not run", () => {
    expect(reportAblation("random-4gb", [], null)).toEqual([]);
  });
});
