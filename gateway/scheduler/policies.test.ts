/** What sets the policies apart, on one cluster: a near host whose only device works, and a far one that is free. */
import { describe, expect, test } from "bun:test";
import type { SchedulingPolicy } from "../../schema/vocab.ts";
import { ClusterIndex } from "./cluster-index.ts";
import { decide } from "./decide.ts";
import { nominalEstimates } from "./estimates.ts";
import type { ClusterFacts, InstanceView, PlacementRequest } from "./view.ts";
import { unused } from "./view.ts";

const checkpoint = "c".repeat(64);
const weights_bytes = 10e9;

function request(policy: SchedulingPolicy, fields: Partial<PlacementRequest> = {}): PlacementRequest {
  return {
    ...{ model_id: "m", checkpoint, weights_bytes, memory_bytes: 1_000, policy },
    max_instances: 8,
    waiting_ahead: 0,
    rivals: { models: 0, requests: 0 },
    queue_delay_ms: 5_000,
    avoid: { workers: new Set(), instances: new Set() },
    seed: 0,
    claims: new Map(),
    may_migrate: false,
    now_ms: 100_000,
    ...fields,
  };
}

function other(instance_id: string, tokens: number, in_flight = 1) {
  const view: InstanceView = {
    ...{
      instance_id,
      model_id: instance_id,
      checkpoint: "d".repeat(64),
      worker_id: "near",
      device_id: "cpu0",
    },
    state: "ready",
    slots: 1,
    memory_bytes: 1_000,
  };
  return { view, usage: { ...unused, in_flight, tokens, busy_since_ms: in_flight > 0 ? 0 : null } };
}

function cluster(
  others: readonly ReturnType<typeof other>[],
  far: readonly string[] = ["far"],
  fields: Partial<ClusterFacts> = {},
): ClusterIndex {
  const device = (worker_id: string, memory_bytes: number, reserved_bytes: number) =>
    ({ worker_id, device_id: "cpu0", kind: "cpu", memory_bytes, reserved_bytes }) as const;
  const held = others.length * 1_000;
  return new ClusterIndex(
    {
      workers: ["near", ...far].map((worker_id) => ({ worker_id, accepting: true })),
      devices: [device("near", held, held), ...far.map((id) => device(id, 1_000, 0))],
      sources: [
        { worker_id: "near", checkpoint, tier: "host", bytes_present: weights_bytes },
        ...far.map((worker_id) => ({
          ...{ worker_id, checkpoint, bytes_present: weights_bytes },
          tier: "disk" as const,
        })),
      ],
      links: [],
      problems: [],
      instances: others.map((o) => o.view),
      usage: new Map(others.map((o) => [o.view.instance_id, o.usage])),
      remote: { peer: false, origin: false },
      ...fields,
    },
    nominalEstimates,
    new Map(),
  );
}

describe("policies", () => {
  test("startup-optimal starts on the far host where waiting for the near one takes longer", () => {
    const { action, estimate_ms } = decide(cluster([other("a", 0)]), request("startup-optimal"));
    expect(action).toMatchObject({ kind: "start", target: { worker_id: "far", tier: "disk" } });
    expect(estimate_ms).toBeCloseTo(5_300, 0);
  });

  test("startup-optimal waits for the near host where its work has just begun", () => {
    const view = cluster([other("a", 0)]);
    const soon = decide(view, request("startup-optimal", { now_ms: 10 }));
    expect(soon.action).toMatchObject({ kind: "hold", worker_id: "near", until: "memory", behind: ["a"] });
    // Work that outlasts what was expected is expected to go on: the next decision goes elsewhere.
    expect(decide(view, request("startup-optimal", { now_ms: 60_000 })).action.kind).toBe("start");
  });

  test("startup-optimal takes no device that would idle behind a link while others wait for one", () => {
    const queued = { worker_id: "far", link: "disk", queued_ms: 3_000, bandwidth_bytes_per_s: 2e9 };
    const view = cluster([other("a", 0)], ["far"], { links: [queued] });
    expect(decide(view, request("startup-optimal")).action.kind).toBe("start");
    const rivals = { models: 1, requests: 1 };
    const wanted = decide(view, request("startup-optimal", { rivals }));
    expect(wanted.action).toMatchObject({ kind: "hold", worker_id: "far", until: "link" });
    expect(wanted.estimate_ms).toBeCloseTo(8_300, 0);
    // It starts once its bytes can travel, and where it has a claim.
    const soon = cluster([other("a", 0)], ["far"], { links: [{ ...queued, queued_ms: 900 }] });
    expect(decide(soon, request("startup-optimal", { rivals })).action.kind).toBe("start");
    const claims = new Map([["far/cpu0", "m"]]);
    expect(decide(view, request("startup-optimal", { rivals, claims })).action.kind).toBe("start");
  });

  test("startup-optimal counts the device time of a slow start as what it costs those that wait", () => {
    const view = cluster([other("a", 0)]);
    const alone = decide(view, request("startup-optimal"));
    expect(alone.action).toMatchObject({ kind: "start", target: { worker_id: "far" } });
    const one = decide(view, request("startup-optimal", { rivals: { models: 1, requests: 1 } }));
    const many = decide(view, request("startup-optimal", { rivals: { models: 1, requests: 40 } }));
    expect(one.action.kind).toBe("start");
    // Far it loads for 5.3 s, near for much less: forty others on two devices would lose twenty times the difference.
    expect(many.action).toMatchObject({ kind: "hold", worker_id: "near", until: "memory" });
    // What is told is when the request is served.
    expect(one.estimate_ms).toBeCloseTo(alone.estimate_ms ?? 0, 0);
  });

  test("locality waits for the near host however long that takes", () => {
    const { action } = decide(cluster([other("a", 0)]), request("locality"));
    expect(action).toMatchObject({ kind: "hold", worker_id: "near", until: "memory" });
    const idle = decide(cluster([other("a", 0, 0)]), request("locality"));
    expect(idle.action).toMatchObject({ kind: "reclaim", target: { worker_id: "near" }, victims: ["a"] });
  });

  test("preemptive stops the least work on the near host, idle instances before any", () => {
    const { action } = decide(cluster([other("a", 500), other("b", 20)]), request("preemptive"));
    expect(action).toMatchObject({ kind: "preempt", target: { worker_id: "near" }, victims: ["b"] });
    const idle = decide(cluster([other("a", 0), other("b", 0, 0)]), request("preemptive"));
    expect(idle.action).toMatchObject({ kind: "reclaim", victims: ["b"] });
  });

  test("random draws among the free devices by its seed alone", () => {
    const far = ["f0", "f1", "f2", "f3"];
    const drawn = Array.from({ length: 64 }, (_, seed) => {
      const { action } = decide(cluster([other("a", 0)], far), request("random", { seed }));
      return action.kind === "start" ? action.target.worker_id : action.kind;
    });
    expect(new Set(drawn)).toEqual(new Set(far));
    for (const id of far) expect(drawn.filter((d) => d === id).length).toBeGreaterThan(4);
  });

  test("a model does not run more often than it may, and what is not wanted is still used", () => {
    const own: InstanceView = { ...other("own", 0).view, model_id: "m", checkpoint };
    const usage = new Map([["own", { ...unused, in_flight: 500 }]]);
    const view = cluster([], ["far"], { instances: [own], usage });
    expect(decide(view, request("startup-optimal")).action.kind).toBe("start");
    const bound = request("startup-optimal", { max_instances: 1 });
    expect(decide(view, bound).action).toEqual({ kind: "queue", instance_id: "own" });
  });

  test("bytes from peers and from outside count where they can be fetched", () => {
    const remote = { peer: true, origin: false };
    const devices = [
      { worker_id: "far", device_id: "cpu0", kind: "cpu", memory_bytes: 1_000, reserved_bytes: 0 },
    ] as const;
    const sources = [
      { worker_id: "near", checkpoint, tier: "disk", bytes_present: weights_bytes },
      { worker_id: "far", checkpoint, tier: "disk", bytes_present: weights_bytes / 2 },
    ] as const;
    const { action } = decide(cluster([], ["far"], { devices, sources, remote }), request("startup-optimal"));
    expect(action).toMatchObject({ kind: "start", target: { worker_id: "far", tier: "peer" } });
    const alone = cluster([], ["far"], { devices, sources });
    expect(decide(alone, request("startup-optimal")).action).toMatchObject({ kind: "cannot_ever" });
  });
});
