/** Examples of each decision, and properties over random clusters: the rules that must hold whatever the state. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { deviceKinds, instanceStates, tiers } from "../../schema/vocab.ts";
import { checkProperty } from "../../test/support/property.ts";
import { decide } from "./decide.ts";
import { estimateStartup } from "./estimate.ts";
import { roundsBeforeScaleOut } from "./serve.ts";
import type { ClusterView, InstanceView, PlacementRequest, SourceView } from "./view.ts";

const checkpoint = "c".repeat(64);
const otherCheckpoint = "d".repeat(64);

const request: PlacementRequest = {
  model_id: "m",
  checkpoint,
  weights_bytes: 1_000,
  memory_bytes: 2_000,
  avoid: { workers: new Set(), instances: new Set() },
};

const disk = (worker_id: string): SourceView => ({
  worker_id,
  checkpoint,
  tier: "disk",
  bytes_present: 1_000,
});

function device(worker_id: string, memory_bytes: number, reserved_bytes = 0) {
  return { worker_id, device_id: "cpu0", kind: "cpu", memory_bytes, reserved_bytes } as const;
}

function instance(instance_id: string, fields: Partial<InstanceView> = {}): InstanceView {
  return {
    instance_id,
    model_id: "m",
    checkpoint,
    worker_id: "w1",
    device_id: "cpu0",
    state: "ready",
    slots: 2,
    memory_bytes: 2_000,
    ...fields,
  };
}

function view(fields: Partial<ClusterView> = {}): ClusterView {
  return {
    workers: [
      { worker_id: "w1", accepting: true },
      { worker_id: "w2", accepting: true },
    ],
    devices: [device("w1", 10_000), device("w2", 10_000)],
    sources: [disk("w1"), disk("w2")],
    instances: [],
    in_flight: new Map(),
    last_used_ms: new Map(),
    ...fields,
  };
}

describe("a running instance", () => {
  test("with a free slot is used, the least loaded first", () => {
    const decision = decide(
      view({ instances: [instance("i-a"), instance("i-b")], in_flight: new Map([["i-a", 1]]) }),
      request,
    );
    expect(decision.action).toEqual({ kind: "use", instance_id: "i-b" });
    expect(decision.losers.map((l) => l.instance_id)).toEqual(["i-a"]);
  });

  test("that is full queues, while the queue is short, although another device is free", () => {
    const full = view({
      instances: [instance("i-a")],
      in_flight: new Map([["i-a", 2 * roundsBeforeScaleOut - 1]]),
    });
    expect(decide(full, request).action).toEqual({ kind: "queue", instance_id: "i-a" });
  });

  test("with a long queue makes the model start on another device, never on its own again", () => {
    const in_flight = new Map([["i-a", 2 * roundsBeforeScaleOut]]);
    const decision = decide(view({ instances: [instance("i-a")], in_flight }), request);
    expect(decision.action).toMatchObject({ kind: "start", target: { worker_id: "w2" } });
    const alone = view({ instances: [instance("i-a")], in_flight, devices: [device("w1", 10_000)] });
    expect(decide(alone, request).action).toEqual({ kind: "queue", instance_id: "i-a" });
  });

  test("with a full queue and no other device refuses as overloaded", () => {
    const full = view({
      instances: [instance("i-a")],
      in_flight: new Map([["i-a", 5_000]]),
      devices: [device("w1", 10_000)],
    });
    expect(decide(full, request).action).toEqual({ kind: "cannot_now", code: "overloaded", holds: false });
  });

  test("of an older checkpoint is not used", () => {
    const old = view({ instances: [instance("i-a", { checkpoint: otherCheckpoint })] });
    expect(decide(old, request).action.kind).toBe("start");
  });

  test("on a worker that drains is not used", () => {
    const workers = [{ worker_id: "w1", accepting: false }];
    const decision = decide(view({ workers, instances: [instance("i-a")] }), request);
    expect(decision.action).toEqual({ kind: "cannot_now", code: "no_worker", holds: false });
  });

  test("that failed the request before is avoided", () => {
    const avoid = { workers: new Set<string>(), instances: new Set(["i-a"]) };
    const decision = decide(view({ instances: [instance("i-a")] }), { ...request, avoid });
    expect(decision.action.kind).toBe("start");
  });
});

describe("a start", () => {
  test("waits for a load under way instead of starting a second one", () => {
    const loading = view({ instances: [instance("i-a", { state: "loading" })] });
    expect(decide(loading, request).action).toEqual({ kind: "wait", instance_id: "i-a" });
  });

  test("goes where the bytes are nearest, then where most memory is free", () => {
    const near = view({ sources: [disk("w1"), { ...disk("w2"), tier: "host" }, disk("w2")] });
    expect(decide(near, request).action).toMatchObject({
      kind: "start",
      target: { worker_id: "w2", tier: "host" },
    });
    const roomy = view({ devices: [device("w1", 10_000, 5_000), device("w2", 10_000)] });
    expect(decide(roomy, request).action).toMatchObject({ kind: "start", target: { worker_id: "w2" } });
  });

  test("reclaims the idle instance that was used longest ago when no memory is free", () => {
    const idle = (id: string) => instance(id, { model_id: "other" });
    const full = view({
      devices: [device("w1", 4_000, 4_000)],
      instances: [idle("i-a"), idle("i-b")],
      last_used_ms: new Map([
        ["i-a", 20],
        ["i-b", 10],
      ]),
    });
    expect(decide(full, request).action).toMatchObject({ kind: "reclaim", victims: ["i-b"] });
  });

  test("spares idle instances that are too small to matter", () => {
    const full = view({
      devices: [device("w1", 2_500, 2_500)],
      instances: [
        instance("i-small", { model_id: "x", memory_bytes: 500 }),
        instance("i-large", { model_id: "y", memory_bytes: 2_000 }),
      ],
      last_used_ms: new Map([["i-large", 2]]),
    });
    expect(decide(full, request).action).toMatchObject({ kind: "reclaim", victims: ["i-large"] });
  });

  test("is held while the memory is in use by others", () => {
    const busy = view({
      devices: [device("w1", 2_000, 2_000)],
      instances: [instance("i-a", { model_id: "other" })],
      in_flight: new Map([["i-a", 1]]),
    });
    expect(decide(busy, request).action).toEqual({
      kind: "cannot_now",
      code: "insufficient_memory",
      holds: true,
    });
  });

  test("is refused for good when no device is large enough or nobody has the checkpoint", () => {
    const small = view({ devices: [device("w1", 1_999)] });
    expect(decide(small, request).action).toEqual({ kind: "cannot_ever", code: "insufficient_memory" });
    const absent = decide(view({ sources: [] }), request);
    expect(absent.action).toEqual({ kind: "cannot_ever", code: "checkpoint_unavailable" });
    expect(absent.losers).toHaveLength(2);
  });
});

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
    needed: fc.integer({ min: 1, max: 4_000 }),
  })
  .map(({ accepting, instances, used, busy, spare, kinds, sources, needed }) => {
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
      expect((found?.reserved_bytes ?? 0) - freed + request.memory_bytes).toBeLessThanOrEqual(
        found?.memory_bytes ?? 0,
      );
    });
  });

  test("only idle, running instances of the target's device are reclaimed, and none without need", () => {
    checkProperty(someCluster, ({ cluster, request }) => {
      const { action } = decide(cluster, request);
      if (action.kind !== "reclaim") return;
      const found = cluster.devices.find(
        (d) => d.worker_id === action.target.worker_id && d.device_id === action.target.device_id,
      );
      const victims = cluster.instances.filter((i) => action.victims.includes(i.instance_id));
      expect(victims).toHaveLength(action.victims.length);
      let free = (found?.memory_bytes ?? 0) - (found?.reserved_bytes ?? 0);
      for (const victim of victims) {
        expect(victim.state).toBe("ready");
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
        const complete = estimateStartup(d.kind, request.weights_bytes, sources) !== null;
        return accepts(d.worker_id) && complete && d.memory_bytes - d.reserved_bytes >= request.memory_bytes;
      });
      expect(roomy).toHaveLength(0);
    });
  });
});
