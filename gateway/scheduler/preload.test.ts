/** Which checkpoints are read ahead, and where; and what recent arrivals foretell. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { checkProperty } from "../../test/support/property.ts";
import { checkpoint, someCluster, weights } from "../../test/support/some-cluster.ts";
import { ClusterIndex } from "./cluster-index.ts";
import { nominalEstimates } from "./estimates.ts";
import { choosePreloads, likelihoodOf, type PreloadWish, withArrival } from "./preload.ts";

const wish: PreloadWish = {
  model_id: "new",
  checkpoint,
  weights_bytes: 1_000,
  memory_bytes: 1,
  likelihood: 1,
};

describe("whatever the cluster", () => {
  test("only hosts that take work and have the whole file read it, once in all, and no host twice at once", () => {
    checkProperty(someCluster, ({ cluster }) => {
      const view = new ClusterIndex(cluster, nominalEstimates, weights);
      const other = { ...wish, model_id: "other", checkpoint: "d".repeat(64), likelihood: 0.6 };
      const chosen = choosePreloads(view, [other, wish]);
      expect(new Set(chosen.map((p) => p.worker_id)).size).toBe(chosen.length);
      expect(new Set(chosen.map((p) => p.model_id)).size).toBe(chosen.length);
      for (const { worker_id, checkpoint: digest } of chosen) {
        expect(cluster.workers.find((w) => w.worker_id === worker_id)?.accepting).toBe(true);
        const bytes = (tier: string) =>
          Math.max(
            0,
            ...cluster.sources
              .filter((s) => s.worker_id === worker_id && s.checkpoint === digest && s.tier === tier)
              .map((s) => s.bytes_present),
          );
        expect(bytes("disk")).toBeGreaterThanOrEqual(1_000);
        expect(bytes("host")).toBe(0);
      }
    });
  });

  test("a model with any instance is not read ahead", () => {
    checkProperty(someCluster, ({ cluster }) => {
      const view = new ClusterIndex(cluster, nominalEstimates, weights);
      const chosen = choosePreloads(view, [{ ...wish, model_id: "m" }]);
      if (cluster.instances.some((i) => i.model_id === "m")) expect(chosen).toEqual([]);
    });
  });
});

describe("a forecast", () => {
  const minute = 60_000;

  test("one request makes another one as likely as not, three make it likely, an hour later nothing does", () => {
    const one = withArrival(undefined, 0);
    expect(likelihoodOf(one, 0)).toBeCloseTo(0.5, 5);
    expect(likelihoodOf(one, 1)).toBeLessThan(0.5);
    const three = withArrival(withArrival(one, minute), 2 * minute);
    expect(likelihoodOf(three, 5 * minute)).toBeGreaterThan(0.7);
    expect(likelihoodOf(three, 65 * minute)).toBeLessThan(0.05);
  });

  test("grows with each arrival, falls with time, and stays a likelihood", () => {
    const gaps = fc.array(fc.integer({ min: 0, max: 100 * minute }), { minLength: 1, maxLength: 50 });
    checkProperty(gaps, (between) => {
      let now_ms = 0;
      let arrivals = withArrival(undefined, now_ms);
      for (const gap of between) {
        const before = likelihoodOf(arrivals, now_ms);
        now_ms += gap;
        const later = likelihoodOf(arrivals, now_ms);
        expect(later).toBeLessThanOrEqual(before);
        arrivals = withArrival(arrivals, now_ms);
        expect(likelihoodOf(arrivals, now_ms)).toBeGreaterThanOrEqual(later);
        expect(likelihoodOf(arrivals, now_ms)).toBeLessThanOrEqual(1);
      }
    });
  });
});
