/** Properties of the scheduler over random clusters: the rules that must hold whatever the state. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { deviceKinds, instanceStates, tiers } from "../../schema/vocab.ts";
import { checkProperty } from "../../test/support/property.ts";
import { decide } from "./decide.ts";
import { estimateStartup } from "./estimate.ts";
import type { ClusterView, PlacementRequest } from "./view.ts";

const checkpoint = "c".repeat(64);
const otherCheckpoint = "d".repeat(64);

const request: PlacementRequest = {
  model_id: "m",
  checkpoint,
  weights_bytes: 1_000,
  memory_bytes: 2_000,
  avoid: { workers: new Set(), instances: new Set() },
};

const workerIds = ["w1", "w2", "w3"];
const someInstance = fc.record({
  instance_id: fc.integer({ min: 0, max: 30 }).map((n) => `i-${n}`),
  model_id: fc.constantFrom("m", "x", "y"),
  checkpoint: fc.constantFrom(checkpoint, otherCheckpoint),
  worker_id: fc.constantFrom(...workerIds),
  device_id: fc.constantFrom("cpu0", "gpu0"),
  state: fc.constantFrom(...instanceStates),
  slots: fc.integer({ min: 1, max: 4 }),
  memory_bytes: fc.integer({ min: 1, max: 3_000 }),
});

/** Clusters whose books balance: a device's reservation is the sum of its instances that hold memory. */
const someCluster = fc
  .record({
    accepting: fc.tuple(fc.boolean(), fc.boolean(), fc.boolean()),
    instances: fc.uniqueArray(someInstance, { selector: (i) => i.instance_id, maxLength: 12 }),
    used: fc.array(fc.integer({ min: 0, max: 10 }), { minLength: 12, maxLength: 12 }),
    busy: fc.array(fc.integer({ min: 0, max: 80 }), { minLength: 31, maxLength: 31 }),
    spare: fc.array(fc.integer({ min: 0, max: 3_000 }), { minLength: 6, maxLength: 6 }),
    kinds: fc.array(fc.constantFrom(...deviceKinds), { minLength: 6, maxLength: 6 }),
    sources: fc.array(
      fc.record({
        worker_id: fc.constantFrom(...workerIds),
        checkpoint: fc.constantFrom(checkpoint, otherCheckpoint),
        tier: fc.constantFrom(...tiers),
        bytes_present: fc.integer({ min: 0, max: 1_500 }),
      }),
      { maxLength: 6 },
    ),
    queues: fc.uniqueArray(
      fc.record({
        worker_id: fc.constantFrom(...workerIds),
        link: fc.constantFrom("disk", "device:gpu0"),
        queued_ms: fc.integer({ min: 0, max: 10_000 }),
      }),
      { selector: (q) => `${q.worker_id} ${q.link}`, maxLength: 6 },
    ),
    needed: fc.integer({ min: 1, max: 4_000 }),
  })
  .map(({ accepting, instances, used, busy, spare, kinds, sources, queues, needed }) => {
    const slots = workerIds.flatMap((worker_id) =>
      ["cpu0", "gpu0"].map((device_id) => ({ worker_id, device_id })),
    );
    const devices = slots.map(({ worker_id, device_id }, i) => {
      const reserved_bytes = instances
        .filter((x) => x.worker_id === worker_id && x.device_id === device_id)
        .filter((x) => x.state !== "gone" && x.state !== "failed")
        .reduce((sum, x) => sum + x.memory_bytes, 0);
      const memory_bytes = reserved_bytes + (spare[i] ?? 0);
      return { worker_id, device_id, kind: kinds[i] ?? "cpu", memory_bytes, reserved_bytes };
    });
    const cluster: ClusterView = {
      workers: workerIds.map((worker_id, i) => ({ worker_id, accepting: accepting[i] ?? false })),
      devices,
      sources,
      links: queues.map(({ worker_id, link, queued_ms }) => ({
        worker_id,
        link,
        queued_ms,
        bandwidth_bytes_per_s: null,
      })),
      problems: [],
      instances,
      in_flight: new Map(instances.map((x, i) => [x.instance_id, busy[i] ?? 0] as const)),
      last_used_ms: new Map(instances.map((x, i) => [x.instance_id, used[i] ?? 0] as const)),
    };
    return { cluster, request: { ...request, memory_bytes: needed } };
  });

describe("whatever the cluster", () => {
  test("a start never takes more memory than is free and what its victims give back", () => {
    checkProperty(someCluster, ({ cluster, request }) => {
      const { action } = decide(cluster, request);
      if (action.kind !== "start" && action.kind !== "reclaim") return;
      const { worker_id, device_id } = action.target;
      const found = cluster.devices.find((d) => d.worker_id === worker_id && d.device_id === device_id);
      const victims = action.kind === "reclaim" ? action.victims : [];
      const freed = cluster.instances
        .filter((i) => victims.includes(i.instance_id))
        .reduce((sum, i) => sum + i.memory_bytes, 0);
      expect(found).toBeDefined();
      const again = cluster.instances.find((i) => i.instance_id === action.target.parked)?.memory_bytes ?? 0;
      expect((found?.reserved_bytes ?? 0) - freed + request.memory_bytes - again).toBeLessThanOrEqual(
        found?.memory_bytes ?? 0,
      );
    });
  });

  test("only idle instances of the target's device are reclaimed, none without need nor for itself", () => {
    checkProperty(someCluster, ({ cluster, request }) => {
      const { action } = decide(cluster, request);
      if (action.kind !== "reclaim") return;
      const found = cluster.devices.find(
        (d) => d.worker_id === action.target.worker_id && d.device_id === action.target.device_id,
      );
      const victims = cluster.instances.filter((i) => action.victims.includes(i.instance_id));
      expect(victims).toHaveLength(action.victims.length);
      const again = cluster.instances.find((i) => i.instance_id === action.target.parked)?.memory_bytes ?? 0;
      let free = (found?.memory_bytes ?? 0) - (found?.reserved_bytes ?? 0) + again;
      for (const victim of victims) {
        expect(["ready", "parked"]).toContain(victim.state);
        expect(victim.instance_id).not.toBe(action.target.parked ?? "");
        expect(cluster.in_flight.get(victim.instance_id) ?? 0).toBe(0);
        expect([victim.worker_id, victim.device_id]).toEqual([
          action.target.worker_id,
          action.target.device_id,
        ]);
        free += victim.memory_bytes;
      }
      for (const victim of victims) expect(free - victim.memory_bytes).toBeLessThan(request.memory_bytes);
    });
  });

  test("a parked instance comes back only for its own model and checkpoint, and before a new one beside it", () => {
    checkProperty(someCluster, ({ cluster, request }) => {
      const { action } = decide(cluster, request);
      if (action.kind !== "start" && action.kind !== "reclaim") return;
      const { worker_id, device_id, parked } = action.target;
      const own = cluster.instances.filter(
        (i) => i.model_id === "m" && i.checkpoint === checkpoint && i.state === "parked",
      );
      const there = own.filter((i) => i.worker_id === worker_id && i.device_id === device_id);
      expect(parked === null).toBe(there.length === 0);
      if (parked !== null) expect(there.map((i) => i.instance_id)).toContain(parked);
    });
  });

  test("work goes only to instances and workers that take it", () => {
    checkProperty(someCluster, ({ cluster, request }) => {
      const { action } = decide(cluster, request);
      const accepts = (id: string) => cluster.workers.some((w) => w.worker_id === id && w.accepting);
      if (action.kind === "start" || action.kind === "reclaim")
        expect(accepts(action.target.worker_id)).toBe(true);
      if (action.kind !== "use" && action.kind !== "wait" && action.kind !== "queue") return;
      const chosen = cluster.instances.find((i) => i.instance_id === action.instance_id);
      expect(chosen).toMatchObject({ model_id: "m", checkpoint });
      expect(chosen?.state).toBe(action.kind === "wait" ? "loading" : "ready");
      expect(accepts(chosen?.worker_id ?? "")).toBe(true);
      const inFlight = cluster.in_flight.get(action.instance_id) ?? 0;
      if (action.kind === "use") expect(inFlight).toBeLessThan(chosen?.slots ?? 0);
    });
  });

  test("the same view gives the same decision, in whatever order its parts are listed", () => {
    checkProperty(someCluster, ({ cluster, request }) => {
      const reversed: ClusterView = {
        workers: cluster.workers.toReversed(),
        devices: cluster.devices.toReversed(),
        sources: cluster.sources.toReversed(),
        links: cluster.links.toReversed(),
        problems: cluster.problems.toReversed(),
        instances: cluster.instances.toReversed(),
        in_flight: cluster.in_flight,
        last_used_ms: cluster.last_used_ms,
      };
      expect(decide(reversed, request).action).toEqual(decide(cluster, request).action);
    });
  });

  test("a free slot, a load under way or free memory is never turned down", () => {
    checkProperty(someCluster, ({ cluster, request }) => {
      const { action, reason } = decide(cluster, request);
      expect(reason).not.toBe("");
      if (action.kind !== "cannot_now" && action.kind !== "cannot_ever") return;
      const accepts = (id: string) => cluster.workers.some((w) => w.worker_id === id && w.accepting);
      const own = cluster.instances.filter((i) => i.model_id === "m" && i.checkpoint === checkpoint);
      expect(own.filter((i) => accepts(i.worker_id) && ["ready", "loading"].includes(i.state))).toHaveLength(
        0,
      );
      const roomy = cluster.devices.filter((d) => {
        const sources = cluster.sources.filter(
          (x) => x.worker_id === d.worker_id && x.checkpoint === checkpoint,
        );
        const complete = estimateStartup(d, request.weights_bytes, sources, []) !== null;
        return accepts(d.worker_id) && complete && d.memory_bytes - d.reserved_bytes >= request.memory_bytes;
      });
      expect(roomy).toHaveLength(0);
    });
  });

  test("more work queued on a worker's links never draws a start to it", () => {
    checkProperty(someCluster, ({ cluster, request }) => {
      const { action } = decide(cluster, request);
      if (action.kind !== "start") return;
      const { worker_id } = action.target;
      const eased = cluster.links.map((l) => (l.worker_id === worker_id ? { ...l, queued_ms: 0 } : l));
      const after = decide({ ...cluster, links: eased }, request).action;
      expect(after).toMatchObject({ kind: "start", target: { worker_id } });
    });
  });
});
