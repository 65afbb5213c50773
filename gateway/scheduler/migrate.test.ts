/** Plans of moves: examples, and the search held against trying out everything. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { checkProperty } from "../../test/support/property.ts";
import { findCandidates, soonest } from "./candidates.ts";
import { ClusterIndex } from "./cluster-index.ts";
import { decide } from "./decide.ts";
import { nominal_init_ms, nominal_migration, nominalEstimates } from "./estimates.ts";
import { planMoves } from "./migrate.ts";
import { type ClusterFacts, type InstanceView, type PlacementRequest, unused } from "./view.ts";

const wanted = "c".repeat(64);

const request: PlacementRequest = {
  model_id: "m",
  checkpoint: wanted,
  weights_bytes: 1_000,
  memory_bytes: 1_000,
  max_instances: 8,
  waiting_ahead: 0,
  rivals: { models: 0, requests: 0 },
  queue_delay_ms: 5_000,
  avoid: { workers: new Set(), instances: new Set() },
  policy: "startup-optimal",
  seed: 0,
  claims: new Map(),
  may_migrate: true,
  now_ms: 0,
};

interface Running {
  readonly memory_bytes: number;
  readonly tokens: number;
  /** Hosts beside the source that have its checkpoint. */
  readonly at: readonly number[];
}

const digestOf = (victim: number) => String(victim).padStart(64, "0");

/** One full source with the wanted checkpoint, and other hosts with free memory and some checkpoints. */
function cluster(running: readonly Running[], free: readonly number[]): ClusterIndex {
  const hosts = ["source", ...free.map((_, i) => `d${i}`)];
  const instances: InstanceView[] = running.map(({ memory_bytes }, i) => ({
    instance_id: `i-${i}`,
    model_id: `v${i}`,
    checkpoint: digestOf(i),
    worker_id: "source",
    device_id: "cpu0",
    state: "ready",
    slots: 1,
    memory_bytes,
  }));
  const used = running.reduce((sum, r) => sum + r.memory_bytes, 0);
  const device = (worker_id: string, memory_bytes: number, reserved_bytes: number) =>
    ({ worker_id, device_id: "cpu0", kind: "cpu", memory_bytes, reserved_bytes }) as const;
  const facts: ClusterFacts = {
    workers: hosts.map((worker_id) => ({ worker_id, accepting: true })),
    devices: [
      device("source", Math.max(used, request.memory_bytes), Math.max(used, request.memory_bytes)),
      ...free.map((bytes, i) => device(`d${i}`, bytes, 0)),
    ],
    sources: [
      { worker_id: "source", checkpoint: wanted, tier: "host", bytes_present: 1_000 },
      ...running.flatMap(({ at }, victim) =>
        at.map((host) => ({
          worker_id: `d${host}`,
          checkpoint: digestOf(victim),
          tier: "host" as const,
          bytes_present: 500,
        })),
      ),
    ],
    links: [],
    problems: [],
    instances,
    usage: new Map(
      running.map(({ tokens }, i) => [
        `i-${i}`,
        { ...unused, in_flight: 1, tokens, busy_since_ms: -1_000_000 },
      ]),
    ),
    remote: { peer: false, origin: false },
  };
  return new ClusterIndex(facts, nominalEstimates, new Map(running.map((_, i) => [digestOf(i), 500])));
}

function plan(view: ClusterIndex) {
  const { busy } = findCandidates(view, request, view.estimates.model("m"), soonest);
  const [candidate] = busy;
  return candidate === undefined ? null : planMoves(view, request, candidate);
}

const moveCost = (tokens: number) =>
  nominal_init_ms.cold + nominal_migration.ms_per_token * tokens + nominal_migration.base_ms;

describe("a plan of moves", () => {
  test("moves the cheapest set that frees enough memory", () => {
    const found = plan(
      cluster(
        [
          { memory_bytes: 1_000, tokens: 900, at: [0] },
          { memory_bytes: 500, tokens: 10, at: [0] },
          { memory_bytes: 500, tokens: 20, at: [1] },
        ],
        [2_000, 2_000],
      ),
    );
    expect(found?.moves.map((m) => [m.instance_id, m.worker_id])).toEqual([
      ["i-1", "d0"],
      ["i-2", "d1"],
    ]);
    expect(found?.cost_ms).toBeCloseTo(moveCost(20), 3);
  });

  test("promises the memory of a destination once", () => {
    const both = [
      { memory_bytes: 500, tokens: 0, at: [0] },
      { memory_bytes: 500, tokens: 0, at: [0] },
    ];
    expect(plan(cluster(both, [999]))).toBeNull();
    expect(plan(cluster(both, [1_000]))?.moves).toHaveLength(2);
  });

  test("is chosen when it is sooner than waiting, and never without leave", () => {
    const view = cluster([{ memory_bytes: 1_000, tokens: 100, at: [0] }], [1_000]);
    expect(decide(view, request).action).toMatchObject({
      kind: "migrate",
      target: { worker_id: "source" },
      moves: [{ instance_id: "i-0", worker_id: "d0", into: null }],
    });
    const fixed = decide(view, { ...request, may_migrate: false });
    expect(fixed.action).toMatchObject({ kind: "hold", worker_id: "source" });
  });

  test("costs what the cheapest of all possible plans costs", () => {
    const someRunning = fc.record({
      memory_bytes: fc.integer({ min: 100, max: 900 }),
      tokens: fc.integer({ min: 0, max: 1_000 }),
      at: fc.uniqueArray(fc.integer({ min: 0, max: 2 }), { maxLength: 3 }),
    });
    const some = fc.record({
      running: fc.array(someRunning, { minLength: 1, maxLength: 4 }),
      free: fc.tuple(...[0, 1, 2].map(() => fc.integer({ min: 0, max: 1_500 }))),
    });
    checkProperty(some, ({ running, free }) => {
      const found = plan(cluster(running, free));
      const best = cheapestByTrying(running, free);
      expect(found === null).toBe(best === null);
      if (found !== null && best !== null) expect(found.cost_ms).toBeCloseTo(best, 3);
    });
  });
});

/** Every victim stays or goes to any host with its checkpoint: the smallest longest time of all that fit and free enough. */
function cheapestByTrying(running: readonly Running[], free: readonly number[]): number | null {
  const deficit = request.memory_bytes;
  let best: number | null = null;
  const attempt = (victim: number, left: readonly number[], busy: readonly number[], freed: number) => {
    const next = running[victim];
    if (next === undefined) {
      const longest = Math.max(0, ...busy);
      if (freed >= deficit && (best === null || longest < best)) best = longest;
      return;
    }
    attempt(victim + 1, left, busy, freed);
    for (const host of next.at) {
      if ((left[host] ?? 0) < next.memory_bytes) continue;
      const less = left.map((bytes, i) => (i === host ? bytes - next.memory_bytes : bytes));
      const more = busy.map((ms, i) => (i === host ? ms + moveCost(next.tokens) : ms));
      attempt(victim + 1, less, more, freed + next.memory_bytes);
    }
  };
  attempt(
    0,
    free,
    free.map(() => 0),
    0,
  );
  return best;
}
