import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { checkProperty } from "../../../test/support/property.ts";
import { type Job, lateAtLeast, startupBoundMs } from "./capacity.ts";
import { type ClairvoyantCluster, clairvoyantMs, givenUp } from "./clairvoyant.ts";
import { leastStartupSumMs } from "./exact.ts";

const job = (arrival_ms: number, model: number, service_ms = 100): Job => ({ arrival_ms, service_ms, model });
const someJobs = fc
  .array(
    fc.record({ arrival_ms: fc.nat(500), service_ms: fc.integer({ min: 1, max: 200 }), model: fc.nat(2) }),
    {
      minLength: 1,
      maxLength: 6,
    },
  )
  .map((jobs) => jobs.toSorted((a, b) => a.arrival_ms - b.arrival_ms));

describe("the best schedule of a few requests", () => {
  test("pays one load for each model, and none for what fits beside it", () => {
    const cluster = { devices: 1, load_ms: 50 };
    expect(leastStartupSumMs([job(0, 0)], cluster)).toBe(50);
    expect(leastStartupSumMs([job(0, 0), job(500, 0)], cluster)).toBe(50);
    // Of the same model first: 50, 150; then the other: 250 and its load.
    expect(leastStartupSumMs([job(0, 0), job(0, 0), job(0, 1)], cluster)).toBe(50 + 150 + 300);
    expect(leastStartupSumMs([job(0, 0), job(0, 1)], { devices: 2, load_ms: 50 })).toBe(100);
  });

  test("another device or a shorter load never makes it worse, and order of the list means nothing", () => {
    checkProperty(
      fc.tuple(someJobs, fc.integer({ min: 1, max: 2 }), fc.nat(100)),
      ([jobs, devices, load_ms]) => {
        const best = leastStartupSumMs(jobs, { devices, load_ms });
        expect(leastStartupSumMs(jobs, { devices: devices + 1, load_ms })).toBeLessThanOrEqual(best);
        expect(leastStartupSumMs(jobs, { devices, load_ms: load_ms / 2 })).toBeLessThanOrEqual(best);
        expect(leastStartupSumMs(jobs.toReversed(), { devices, load_ms })).toBe(best);
        expect(best).toBeGreaterThanOrEqual(load_ms);
      },
      60,
    );
  });
});

describe("the bound on start-up times", () => {
  test("ten requests at once on two devices: the fifth of each waits for four others", () => {
    const jobs = Array.from({ length: 10 }, () => job(0, 0));
    expect(startupBoundMs(jobs, { devices: 2, load_ms: 0 }, 1, 10_000)).toBeCloseTo(400, 0);
    expect(startupBoundMs(jobs, { devices: 10, load_ms: 0 }, 1, 10_000)).toBe(0);
    expect(lateAtLeast(jobs, { devices: 2, load_ms: 0 }, 0)).toBe(8);
  });

  test("more models than devices add loads", () => {
    const jobs = Array.from({ length: 4 }, (_, i) => job(0, i));
    const without = startupBoundMs(jobs, { devices: 2, load_ms: 0 }, 1, 10_000);
    expect(startupBoundMs(jobs, { devices: 2, load_ms: 80 }, 1, 10_000)).toBeCloseTo(without + 80, 0);
  });

  test("no schedule is better than it: the best one of a few requests has as many late ones or more", () => {
    checkProperty(
      fc.tuple(someJobs, fc.integer({ min: 1, max: 2 }), fc.nat(100)),
      ([jobs, devices, load_ms]) => {
        // If all could start by the bound the sum would be at most so many times it: the bound on one is on their sum.
        const bound_ms = startupBoundMs(jobs, { devices, load_ms }, 1, 10_000);
        expect(leastStartupSumMs(jobs, { devices, load_ms })).toBeGreaterThanOrEqual(bound_ms - 0.01);
      },
      150,
    );
  });
});

describe("a schedule that knows all", () => {
  const cluster = (devices: number, load_ms: number, fields: Partial<ClairvoyantCluster> = {}) => ({
    ...{ hosts: 1, devices, hostOf: () => null, copies: 100, load_ms },
    ...{ disk_load_ms: load_ms, network_load_ms: load_ms, ...fields },
  });

  test("gives up the longest of those in the way, and no more than it has to", () => {
    const jobs = [job(0, 0, 900), job(1, 0, 100), job(2, 0, 100)];
    expect(givenUp(jobs, cluster(1, 0), 150, 3)).toBe(1);
    expect(givenUp(jobs, cluster(1, 0), 1_000, 3)).toBe(0);
    expect(givenUp(jobs, cluster(3, 0), 0, 3)).toBe(0);
  });

  test("reads from the disk of the model's host, later from memory, and elsewhere over the network", () => {
    const two = { hosts: 2, hostOf: () => 0, disk_load_ms: 200, network_load_ms: 700 };
    const once = [[job(0, 0, 1_000)]];
    expect(clairvoyantMs(once, cluster(1, 50, two), 1, 10_000)).toBeCloseTo(200, 0);
    // The second has the other host, over the network, before the first one's device is free.
    const both = [[job(0, 0, 1_000), job(0, 0, 1_000)]];
    expect(clairvoyantMs(both, cluster(1, 50, two), 1, 10_000)).toBeCloseTo(700, 0);
    // A third model wants the first one's device, which then has its copy in memory.
    const again = [[job(0, 0, 100), job(500, 1, 100), job(1_000, 0, 100)]];
    expect(clairvoyantMs(again, cluster(1, 50, { ...two, hosts: 1 }), 1, 10_000)).toBeCloseTo(200, 0);
  });

  test("is never better than the bound", () => {
    checkProperty(
      fc.tuple(someJobs, fc.integer({ min: 1, max: 2 }), fc.nat(100), fc.constantFrom(0.5, 0.8, 1)),
      ([jobs, devices, load_ms, share]) => {
        const reached_ms = clairvoyantMs([jobs], cluster(devices, load_ms), share, 10_000);
        expect(reached_ms).toBeGreaterThanOrEqual(
          startupBoundMs(jobs, { devices, load_ms }, share, 10_000) - 1,
        );
      },
      300,
    );
  });
});
