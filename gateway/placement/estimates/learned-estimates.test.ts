/** Learning: what counts when, and what wild values do. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { LoadTimings } from "../../../schema/cluster/instances.ts";
import { limits } from "../../../schema/limits.ts";
import { checkProperty } from "../../../test/support/property.ts";
import { someLoadTimings } from "../../../test/support/scripted-worker.ts";
import { nominal_init_ms, nominal_service_ms, type StartHow } from "../../scheduler/estimates.ts";
import { keyOf, LearnedEstimates, networkDetail } from "./learned-estimates.ts";
import { observeGeneration, observeKvTransfer, observeMove, observeStart } from "./observe.ts";
import { quantile, robustLine } from "./robust.ts";

const MiB = 1024 * 1024;

const target = {
  ...({ worker_id: "w1", device_id: "cpu0", tier: "disk", parked: null } as const),
  ...{ estimate_ms: 500, queued_ms: 0, arrival_ms: 0, is_beside: false },
};
const cold = { how: "cold", is_in_memory: false, is_beside: false } as const;

describe("learned estimates", () => {
  test("before anything was seen the nominal numbers count", () => {
    const estimates = new LearnedEstimates();
    expect(estimates.links("w1")).toBeNull();
    expect(estimates.model("m").initMs("w1", "cpu", cold)).toBe(nominal_init_ms.cold);
    expect(estimates.model("m").service_ms).toBe(nominal_service_ms);
  });

  test("moves teach the rate of a worker's network and what computing a stream takes, with how wrong both were", () => {
    const estimates = new LearnedEstimates();
    observeKvTransfer(estimates, "w1", MiB / 2, 100);
    expect(estimates.links("w1")).toBeNull();
    for (const ms of [10, 10, 20]) observeKvTransfer(estimates, "w1", 10 * MiB, ms);
    expect(estimates.links("w1")?.get(networkDetail)).toBe(MiB);
    for (const tokens of [100, 300]) observeMove(estimates, "m", "cpu", tokens, 40 + 2 * tokens);
    expect(estimates.model("m").migrationMs("cpu", 200, 1)).toBeCloseTo(440);
    const errors = estimates.takePending().flatMap((one) => one.errors);
    // Of the network: right, then off by half. Of streams: by the nominal line.
    expect(errors).toEqual([0, 0.5, (240 - 150) / 240, (640 - 350) / 640]);
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
      expect(estimates.model(model_id).initMs(worker_id, "cpu", cold)).toBe(50);
    }
    expect(estimates.model("m").initMs("w1", "cuda", cold)).toBe(nominal_init_ms.cold);
    expect(estimates.model("m").initMs("w1", "cpu", { ...cold, how: "resume" })).toBe(nominal_init_ms.resume);
    // Another model's own starts count more for it than those of others.
    observeStart(estimates, "other", target, "cpu", { ...timings, total_ms: 600 });
    expect(estimates.model("other").initMs("w1", "cpu", cold)).toBe(200);
    expect(estimates.model("m").initMs("w1", "cpu", cold)).toBe(50);
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
      observeGeneration(estimates, "m", "cpu", tokens, 0, { queue_ms: 0, prefill_ms, decode_ms: 0 });
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

describe("starts of different beginnings", () => {
  const seen = (fields: Partial<LoadTimings>): LoadTimings => ({
    ...someLoadTimings,
    disk_read_bytes: 0,
    ...fields,
  });
  const host = { ...target, tier: "host" } as const;

  test("are learned apart: by what the engine began with, and beside others at work", () => {
    const estimates = new LearnedEstimates();
    const observe = (timings: LoadTimings, at = host) => observeStart(estimates, "m", at, "cpu", timings);
    const none = { disk_read_ms: 0 };
    observe(seen({ ...none, process_start_ms: 200, model_build_ms: 100, total_ms: 320 }));
    observe(seen({ ...none, process_start_ms: 1, model_build_ms: 99, total_ms: 115 }));
    observe(seen({ ...none, process_start_ms: 1, model_build_ms: 0, total_ms: 40 }));
    const crowded = seen({ ...none, process_start_ms: 1, model_build_ms: 199, total_ms: 250 });
    observe(crowded, { ...host, is_beside: true });
    const model = estimates.model("m");
    const of = (how: StartHow, is_beside = false) => [
      model.buildMs("w1", "cpu", { how, is_in_memory: true, is_beside }),
      model.initMs("w1", "cpu", { how, is_in_memory: true, is_beside }),
    ];
    expect(of("cold")).toEqual([300, 20]);
    expect(of("warm")).toEqual([100, 15]);
    expect(of("built")).toEqual([1, 39]);
    expect(of("warm", true)).toEqual([200, 50]);
    // Not seen beside others: quiet ones say more than nothing.
    expect(of("cold", true)).toEqual([300, 20]);
  });

  test("from memory and from disk are learned apart; other models say what follows, the model itself how it builds", () => {
    const estimates = new LearnedEstimates();
    const read = { disk_read_bytes: 64 * MiB, disk_read_ms: 100, process_start_ms: 1 };
    observeStart(estimates, "m", target, "cpu", seen({ ...read, model_build_ms: 49, total_ms: 180 }));
    const held = { disk_read_ms: 0, process_start_ms: 1, model_build_ms: 9, total_ms: 12 };
    observeStart(estimates, "other", host, "cpu", seen(held));
    const fromMemory = { how: "warm", is_in_memory: true, is_beside: false } as const;
    const model = estimates.model("m");
    expect(model.initMs("w1", "cpu", { ...fromMemory, is_in_memory: false })).toBe(80);
    expect(model.initMs("w1", "cpu", fromMemory)).toBe(2);
    expect(model.buildMs("w1", "cpu", fromMemory)).toBe(50);
  });

  test("a model's own file teaches its own rate, and one that waited for others teaches no rate", () => {
    const estimates = new LearnedEstimates();
    const timings = seen({ disk_read_bytes: 400 * MiB, disk_read_ms: 400, total_ms: 450 });
    observeStart(estimates, "m", target, "cpu", timings);
    const slow = { ...timings, disk_read_ms: 4_000, total_ms: 4_050 };
    observeStart(estimates, "other", { ...target, queued_ms: 500 }, "cpu", slow);
    expect(estimates.model("m").diskBytesPerMs("w1")).toBe(MiB);
    expect(estimates.model("other").diskBytesPerMs("w1")).toBeNull();
    expect(estimates.links("w1")?.get("disk")).toBe(MiB);
  });

  test("answers teach their usual length and the time of a token", () => {
    const estimates = new LearnedEstimates();
    for (const [tokens, decode_ms] of [
      [100, 1_000],
      [200, 2_000],
      [4_000, 40_000],
    ] as const) {
      observeGeneration(estimates, "m", "cpu", 0, tokens, { queue_ms: 0, prefill_ms: 0, decode_ms });
    }
    expect(estimates.model("m").answer).toEqual({ tokens: 200, token_ms: 10 });
  });
});
