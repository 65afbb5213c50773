/** Examples of each decision; decide-properties.test.ts has the rules that hold whatever the cluster. */
import { describe, expect, test } from "bun:test";
import { ClusterIndex } from "./cluster-index.ts";
import { decide, scaleOut_ms } from "./decide.ts";
import { nominal_service_ms, nominalEstimates } from "./estimates.ts";
import {
  type ClusterFacts,
  type InstanceUsage,
  type InstanceView,
  type PlacementRequest,
  type SourceView,
  unused,
} from "./view.ts";

const checkpoint = "c".repeat(64);
const otherCheckpoint = "d".repeat(64);

const request: PlacementRequest = {
  model_id: "m",
  checkpoint,
  weights_bytes: 1_000,
  memory_bytes: 2_000,
  max_instances: 8,
  waiting_ahead: 0,
  rivals: { models: 0, requests: 0 },
  queue_delay_ms: 5_000,
  avoid: { workers: new Set(), instances: new Set() },
  policy: "startup-optimal",
  seed: 0,
  claims: new Map(),
  may_migrate: false,
  now_ms: 1_000_000,
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

type Fields = Partial<Omit<ClusterFacts, "usage">> & {
  readonly usage?: Readonly<Record<string, Partial<InstanceUsage>>>;
};

function view({ usage = {}, ...fields }: Fields = {}): ClusterIndex {
  const used = Object.entries(usage).map(([id, of]) => [id, { ...unused, ...of }] as const);
  const facts: ClusterFacts = {
    workers: [
      { worker_id: "w1", accepting: true },
      { worker_id: "w2", accepting: true },
    ],
    devices: [device("w1", 10_000), device("w2", 10_000)],
    sources: [disk("w1"), disk("w2")],
    links: [],
    problems: [],
    instances: [],
    remote: { peer: false, origin: false },
    ...fields,
    usage: new Map(used),
  };
  return new ClusterIndex(facts, nominalEstimates, new Map([[otherCheckpoint, 500]]));
}

/** Requests at an instance of two slots for which a start elsewhere just pays. */
const enough = Math.ceil((2 * (scaleOut_ms + 300)) / nominal_service_ms) + 2;

describe("a running instance", () => {
  test("with a free slot is used, the least loaded first", () => {
    const decision = decide(
      view({ instances: [instance("i-a"), instance("i-b")], usage: { "i-a": { in_flight: 1 } } }),
      request,
    );
    expect(decision.action).toEqual({ kind: "use", instance_id: "i-b" });
    expect(decision.losers.map((l) => l.instance_id)).toEqual(["i-a"]);
  });

  test("that is full queues, while the queue is short, although another device is free", () => {
    const full = view({
      instances: [instance("i-a")],
      usage: { "i-a": { in_flight: enough - 2 } },
    });
    expect(decide(full, request).action).toEqual({ kind: "queue", instance_id: "i-a" });
  });

  test("with a long queue makes the model start on another device, never on its own again", () => {
    const usage = { "i-a": { in_flight: enough } };
    const decision = decide(view({ instances: [instance("i-a")], usage }), request);
    expect(decision.action).toMatchObject({ kind: "start", target: { worker_id: "w2" } });
    const alone = view({ instances: [instance("i-a")], usage, devices: [device("w1", 10_000)] });
    expect(decide(alone, request).action).toEqual({ kind: "queue", instance_id: "i-a" });
  });

  test("with a full queue and no other device refuses as overloaded", () => {
    const full = view({
      instances: [instance("i-a")],
      usage: { "i-a": { in_flight: 5_000 } },
      devices: [device("w1", 10_000)],
    });
    expect(decide(full, request).action).toEqual({ kind: "cannot_now", code: "overloaded" });
  });

  test("of an older checkpoint is not used", () => {
    const old = view({ instances: [instance("i-a", { checkpoint: otherCheckpoint })] });
    expect(decide(old, request).action.kind).toBe("start");
  });

  test("on a worker that drains is not used", () => {
    const workers = [{ worker_id: "w1", accepting: false }];
    const decision = decide(view({ workers, instances: [instance("i-a")] }), request);
    expect(decision.action).toEqual({ kind: "cannot_now", code: "no_worker" });
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
      usage: { "i-a": { last_used_ms: 20 }, "i-b": { last_used_ms: 10 } },
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
      usage: { "i-large": { last_used_ms: 2 } },
    });
    expect(decide(full, request).action).toMatchObject({ kind: "reclaim", victims: ["i-large"] });
  });

  test("is held while the memory is in use by others", () => {
    const busy = view({
      devices: [device("w1", 2_000, 2_000)],
      instances: [instance("i-a", { model_id: "other" })],
      usage: { "i-a": { in_flight: 1 } },
    });
    expect(decide(busy, request).action).toMatchObject({ kind: "hold", worker_id: "w1", behind: ["other"] });
  });

  test("is refused for good when no device is large enough or nobody has the checkpoint", () => {
    const small = view({ devices: [device("w1", 1_999)] });
    expect(decide(small, request).action).toEqual({ kind: "cannot_ever", code: "model_too_large" });
    expect(decide(small, request).reason).toMatch(/needs 2000 bytes.*gives models 1999/);
    const absent = decide(view({ sources: [] }), request);
    expect(absent.action).toEqual({ kind: "cannot_ever", code: "checkpoint_unavailable" });
    expect(absent.losers).toHaveLength(2);
  });

  test("is refused with what is wrong with its files, else with what is wrong with a store", () => {
    const denied = { worker_id: "w1", code: "permission_denied", message: "weights.bin" } as const;
    const missing = { worker_id: "w2", checkpoint: null, code: "store_missing", message: "gone" } as const;
    const both = view({ sources: [], problems: [missing, { ...denied, checkpoint }] });
    expect(decide(both, request)).toMatchObject({
      action: { kind: "cannot_ever", code: "permission_denied" },
      reason: "weights.bin",
    });
    const others = view({ sources: [], problems: [{ ...denied, checkpoint: otherCheckpoint }, missing] });
    expect(decide(others, request).action).toEqual({ kind: "cannot_ever", code: "store_missing" });
    const healthy = view({ sources: [disk("w2")], problems: [{ ...denied, checkpoint }] });
    expect(decide(healthy, request).action).toMatchObject({ kind: "start", target: { worker_id: "w2" } });
  });

  test("goes where the disk is free sooner, although the other one is faster", () => {
    const link = (worker_id: string, queued_ms: number, bandwidth_bytes_per_s: number | null) => ({
      worker_id,
      link: "disk",
      queued_ms,
      bandwidth_bytes_per_s,
    });
    const chosen = (...links: ReturnType<typeof link>[]) => {
      const { action } = decide(view({ links }), request);
      return action.kind === "start" ? [action.target.worker_id, action.target.estimate_ms - 300] : [];
    };
    expect(chosen(link("w1", 30, 1_000_000), link("w2", 0, 100_000))).toEqual(["w2", 10]);
    expect(chosen(link("w1", 3, 1_000_000), link("w2", 0, 100_000))).toEqual(["w1", 4]);
  });

  test("from host memory waits for no disk", () => {
    const queued = { worker_id: "w1", link: "disk", queued_ms: 500, bandwidth_bytes_per_s: null };
    const warm = view({
      links: [queued],
      sources: [disk("w1"), disk("w2"), { ...disk("w1"), tier: "host" }],
    });
    expect(decide(warm, request).action).toMatchObject({
      target: { worker_id: "w1", tier: "host", estimate_ms: 300 },
    });
  });
});

describe("a parked instance", () => {
  const parked = (fields: Partial<InstanceView> = {}) =>
    instance("i-p", { state: "parked", memory_bytes: 100, ...fields });

  test("comes back where it is, although another device is emptier", () => {
    const devices = [device("w1", 10_000, 7_000), device("w2", 10_000)];
    const { action, reason } = decide(view({ devices, instances: [parked()] }), request);
    expect(action).toMatchObject({ kind: "start", target: { worker_id: "w1", parked: "i-p" } });
    expect(reason).toContain("parked");
  });

  test("needs only what it does not book yet", () => {
    const fits = view({ devices: [device("w1", 2_000, 100)], instances: [parked()] });
    expect(decide(fits, request).action).toMatchObject({ kind: "start", target: { parked: "i-p" } });
    const full = view({ devices: [device("w1", 2_000, 101)], instances: [parked()] });
    expect(decide(full, request).action).toMatchObject({ kind: "hold" });
  });

  test("is left where its bytes would have to travel longer than a start elsewhere takes", () => {
    const far = { ...disk("w1"), tier: "origin", bytes_present: 1e9 } as const;
    const near = { ...disk("w2"), tier: "host", bytes_present: 1e9 } as const;
    const large = { ...request, weights_bytes: 1e9 };
    const { action } = decide(view({ sources: [far, near], instances: [parked()] }), large);
    expect(action).toMatchObject({ kind: "start", target: { worker_id: "w2", parked: null } });
  });

  test("of an older checkpoint, on a worker that takes nothing or that failed the request does not come back", () => {
    const old = view({ instances: [parked({ checkpoint: otherCheckpoint })] });
    const avoided = { workers: new Set<string>(), instances: new Set(["i-p"]) };
    for (const { action } of [
      decide(old, request),
      decide(view({ instances: [parked()] }), { ...request, avoid: avoided }),
    ]) {
      expect(action).toMatchObject({ kind: "start", target: { parked: null } });
    }
    const draining = view({
      workers: [
        { worker_id: "w1", accepting: false },
        { worker_id: "w2", accepting: true },
      ],
      instances: [parked()],
    });
    expect(decide(draining, request).action).toMatchObject({ target: { worker_id: "w2", parked: null } });
  });

  test("goes before a running one when room is needed, and never to make room for itself", () => {
    const others = [
      instance("i-x", { model_id: "x", memory_bytes: 1_000 }),
      instance("i-y", { model_id: "y", state: "parked", memory_bytes: 1_000 }),
    ];
    const usage = { "i-x": { last_used_ms: 1 }, "i-y": { last_used_ms: 2 } };
    const tight = view({ devices: [device("w1", 3_000, 2_000)], instances: others, usage });
    expect(decide(tight, request).action).toMatchObject({ kind: "reclaim", victims: ["i-y"] });
    const own = view({
      devices: [device("w1", 2_050, 1_100)],
      instances: [parked(), instance("i-x", { model_id: "x", memory_bytes: 1_000 })],
    });
    expect(decide(own, request).action).toMatchObject({
      kind: "reclaim",
      victims: ["i-x"],
      target: { parked: "i-p" },
    });
  });
});
