/** How many instances a model gets: its bounds, its concurrency, its queue, and what is worth a start. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { checkProperty } from "../../test/support/property.ts";
import { forgettingMean, type ScaleView, scaleTo } from "./scale.ts";

const idle: ScaleView = {
  min_instances: 0,
  max_instances: null,
  target_concurrency: null,
  queue_delay_ms: 5_000,
  instances: 0,
  slots: 4,
  demand: 0,
  waiting: 0,
  service_ms: 1_000,
  start_ms: 500,
  start_cost_ms: 5_000,
};
const scale = (fields: Partial<ScaleView>) => scaleTo({ ...idle, ...fields }).instances;

describe("bounds", () => {
  test("the minimum is there without a request, and nothing more", () => {
    expect(scale({ min_instances: 2 })).toBe(2);
    expect(scale({ min_instances: 2, instances: 3 })).toBe(3);
    expect(scale({})).toBe(0);
  });

  test("the maximum ends every wish", () => {
    const crowd = { waiting: 1_000, demand: 1_000, target_concurrency: 1, instances: 1 };
    expect(scale({ ...crowd, max_instances: 3 })).toBe(3);
    expect(scaleTo({ ...idle, ...crowd, max_instances: 3 }).reason).toContain("at most 3");
  });
});

describe("concurrency", () => {
  test("as many instances as the mean demand needs at its target, free slots or not", () => {
    expect(scale({ instances: 1, demand: 2.5, target_concurrency: 2 })).toBe(2);
    expect(scale({ instances: 1, demand: 4, target_concurrency: 2 })).toBe(2);
    expect(scale({ instances: 1, demand: 4 })).toBe(1);
  });
});

describe("a burst", () => {
  test("starts several at once, as many as bring the last one within the delay", () => {
    // 100 requests, 4 at once per instance, one second each: six instances need 4.7 s with their start.
    expect(scale({ waiting: 100 })).toBe(6);
    expect(scale({ waiting: 100, instances: 1 })).toBe(6);
    expect(scale({ waiting: 100, instances: 1, queue_delay_ms: 2_000 })).toBeGreaterThan(6);
  });

  test("starts nothing while those that are there are quick enough", () => {
    expect(scale({ waiting: 20, instances: 1 })).toBe(1);
    expect(scale({ waiting: 21, instances: 1 })).toBeGreaterThan(1);
  });

  test("starts nothing that would come too late", () => {
    expect(scale({ waiting: 40, instances: 1, start_ms: 10_000 })).toBe(1);
    expect(scale({ waiting: 60, instances: 1, start_ms: 10_000 })).toBeGreaterThan(1);
  });

  test("starts no more than save others as much waiting as a start costs", () => {
    const slow = { waiting: 100, instances: 1, start_ms: 10_000, queue_delay_ms: 0 };
    expect(scale(slow)).toBeLessThan(scale({ ...slow, start_cost_ms: 0 }));
  });

  test("starts nothing where there is no room", () => {
    expect(scale({ waiting: 100, instances: 1, start_ms: null })).toBe(1);
  });
});

const someView = fc.record<ScaleView>({
  min_instances: fc.integer({ min: 0, max: 4 }),
  max_instances: fc.option(fc.integer({ min: 4, max: 20 })),
  target_concurrency: fc.option(fc.integer({ min: 1, max: 16 })),
  queue_delay_ms: fc.integer({ min: 0, max: 60_000 }),
  instances: fc.integer({ min: 0, max: 20 }),
  slots: fc.integer({ min: 1, max: 16 }),
  demand: fc.double({ min: 0, max: 500, noNaN: true }),
  waiting: fc.integer({ min: 0, max: 500 }),
  service_ms: fc.double({ min: 0, max: 60_000, noNaN: true }),
  start_ms: fc.option(fc.double({ min: 0, max: 60_000, noNaN: true })),
  start_cost_ms: fc.double({ min: 0, max: 10_000, noNaN: true }),
});

describe("whatever the model and its load", () => {
  test("the answer lies between the bounds and never below what is there and allowed", () => {
    checkProperty(someView, (view) => {
      const { instances, reason } = scaleTo(view);
      const most = view.max_instances ?? Number.POSITIVE_INFINITY;
      expect(Number.isInteger(instances)).toBe(true);
      expect(instances).toBeLessThanOrEqual(most);
      expect(instances).toBeGreaterThanOrEqual(Math.min(most, Math.max(view.min_instances, view.instances)));
      expect(reason).not.toBe("");
    });
  });

  test("nobody starts more for a queue than it has requests", () => {
    checkProperty(someView, (view) => {
      const { instances } = scaleTo({ ...view, target_concurrency: null, min_instances: 0 });
      expect(instances - view.instances).toBeLessThanOrEqual(view.waiting);
    });
  });

  test("more room to wait never asks for more instances", () => {
    checkProperty(someView, (view) => {
      const patient = scaleTo({ ...view, queue_delay_ms: view.queue_delay_ms + 10_000 });
      expect(patient.instances).toBeLessThanOrEqual(scaleTo(view).instances);
    });
  });
});

test("a mean over time follows what lasts and not what passes", () => {
  expect(forgettingMean(0, 10, 0, 5_000)).toBe(0);
  expect(forgettingMean(0, 10, 5_000, 5_000)).toBeCloseTo(6.3, 1);
  expect(forgettingMean(0, 10, 100_000, 5_000)).toBeCloseTo(10, 5);
  // However often it is asked in between.
  const often = Array.from({ length: 50 }).reduce<number>((mean) => forgettingMean(mean, 10, 100, 5_000), 0);
  expect(often).toBeCloseTo(forgettingMean(0, 10, 5_000, 5_000), 9);
});
