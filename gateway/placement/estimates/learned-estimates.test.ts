/** Learning: what counts when, and what wild values do. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { limits } from "../../../schema/limits.ts";
import { checkProperty } from "../../../test/support/property.ts";
import { someLoadTimings } from "../../../test/support/scripted-worker.ts";
import { nominal_init_ms, nominal_service_ms } from "../../scheduler/estimates.ts";
import { keyOf, LearnedEstimates } from "./learned-estimates.ts";
import { observeGeneration, observeStart } from "./observe.ts";
import { quantile, robustLine } from "./robust.ts";

const MiB = 1024 * 1024;

const target = {
  ...({ worker_id: "w1", device_id: "cpu0", tier: "disk", parked: null } as const),
  estimate_ms: 500,
  queued_ms: 0,
};

describe("learned estimates", () => {
  test("before anything was seen the nominal numbers count", () => {
    const estimates = new LearnedEstimates();
    expect(estimates.links("w1")).toBeNull();
    expect(estimates.model("m").initMs("w1", "cpu", "start")).toBe(nominal_init_ms.start);
    expect(estimates.model("m").service_ms).toBe(nominal_service_ms);
  });

  test("a start teaches its worker's disk, its init, and less and less exactly all others of its kind", () => {
    const estimates = new LearnedEstimates();
    const timings = { ...someLoadTimings, disk_read_bytes: 400 * MiB, disk_read_ms: 400, total_ms: 450 };
    observeStart(estimates, "m", target, "cpu", timings);
    expect(estimates.links("w1")?.get("disk")).toBe(MiB);
    for (const [model_id, worker_id] of [
      ["m", "w1"],
      ["m", "w2"],
      ["other", "w2"],
    ] as const) {
      expect(estimates.model(model_id).initMs(worker_id, "cpu", "start")).toBe(50);
    }
    expect(estimates.model("m").initMs("w1", "cuda", "start")).toBe(nominal_init_ms.start);
    expect(estimates.model("m").initMs("w1", "cpu", "resume")).toBe(nominal_init_ms.resume);
    // Another model's own starts count more for it than those of others.
    observeStart(estimates, "other", target, "cpu", { ...timings, total_ms: 600 });
    expect(estimates.model("other").initMs("w1", "cpu", "start")).toBe(200);
    expect(estimates.model("m").initMs("w1", "cpu", "start")).toBe(50);
  });

  test("a few bytes teach nothing about a disk", () => {
    const estimates = new LearnedEstimates();
    observeStart(estimates, "m", target, "cpu", someLoadTimings);
    expect(estimates.links("w1")).toBeNull();
  });

  test("a third of wild values moves no estimate beyond what the others say", () => {
    const some = fc.record({
      sane: fc.array(fc.double({ min: 90, max: 110, noNaN: true }), { minLength: 11, maxLength: 11 }),
      wild: fc.array(fc.double({ min: 0, max: 1e9, noNaN: true }), { minLength: 5, maxLength: 5 }),
    });
    checkProperty(some, ({ sane, wild }) => {
      const estimates = new LearnedEstimates();
      for (let i = 0; i < 11; i++) {
        estimates.observe(keyOf("service", { model_id: "m" }), { value: sane[i] ?? 0 });
        if (i % 2 === 0 && i < 10)
          estimates.observe(keyOf("service", { model_id: "m" }), { value: wild[i / 2] ?? 0 });
      }
      expect(estimates.model("m").service_ms).toBeGreaterThanOrEqual(90);
      expect(estimates.model("m").service_ms).toBeLessThanOrEqual(110);
    });
  });

  test("a change that lasts is followed within one window", () => {
    const estimates = new LearnedEstimates();
    const see = (value: number) => estimates.observe(keyOf("service", { model_id: "m" }), { value });
    for (let i = 0; i < 100; i++) see(100);
    for (let i = 0; i < limits.estimate_values; i++) see(300);
    expect(estimates.model("m").service_ms).toBe(300);
  });

  test("what a move costs is learned from prompts, by a line that outliers do not tilt", () => {
    const estimates = new LearnedEstimates();
    for (const tokens of [100, 200, 400, 800, 1_600, 300, 500]) {
      const prefill_ms = tokens === 400 ? 1e6 : 20 + tokens / 2;
      observeGeneration(estimates, "m", "cpu", tokens, { queue_ms: 0, prefill_ms, decode_ms: 0 });
    }
    expect(estimates.model("m").migrationMs("cpu", 1_000, 1)).toBeCloseTo(520, 0);
    expect(estimates.model("m").migrationMs("cpu", 2_000, 2)).toBeCloseTo(1_040, 0);
  });
});

describe("robust statistics", () => {
  test("quantiles lie between the values they are between", () => {
    expect(quantile([], 0.5)).toBeNull();
    expect(quantile([3, 1, 2], 0.5)).toBe(2);
    expect(quantile([0, 10], 0.9)).toBe(9);
  });

  test("a line needs two different places", () => {
    expect(
      robustLine([
        [1, 5],
        [1, 7],
      ]),
    ).toBeNull();
    expect(
      robustLine([
        [0, 5],
        [2, 9],
      ]),
    ).toEqual({ slope: 2, base: 5 });
    expect(
      robustLine([
        [0, 9],
        [2, 5],
      ]),
    ).toEqual({ slope: 0, base: 7 });
  });
});
