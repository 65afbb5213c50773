/** Random small clusters whose books balance, with a request of any policy: for properties of the scheduler. */
import fc from "fast-check";
import { type ClusterFacts, type PlacementRequest, unused } from "../../gateway/scheduler/view.ts";
import { deviceKinds, instanceStates, schedulingPolicies, tiers } from "../../schema/vocab.ts";

export const checkpoint = "c".repeat(64);
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
  may_migrate: true,
  now_ms: 1_000_000,
};

/** Sizes of the checkpoints. */
export const weights = new Map([
  [checkpoint, 1_000],
  [otherCheckpoint, 1_000],
]);

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
export const someCluster = fc
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
    policy: fc.constantFrom(...schedulingPolicies),
    seed: fc.nat(),
    rivals: fc.constantFrom(
      { models: 0, requests: 0 },
      { models: 1, requests: 1 },
      { models: 9, requests: 9 },
    ),
    peer: fc.boolean(),
    max_instances: fc.integer({ min: 1, max: 4 }),
  })
  .map(({ accepting, instances, used, busy, spare, kinds, sources, queues, needed, ...rest }) => {
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
    const cluster: ClusterFacts = {
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
      usage: new Map(
        instances.map((x, i) => {
          // Half of them are idle, so that there is something to reclaim and to move.
          const in_flight = Math.max(0, (busy[i] ?? 0) - 40);
          return [x.instance_id, { ...unused, in_flight, last_used_ms: used[i] ?? 0 }] as const;
        }),
      ),
      remote: { peer: rest.peer, origin: false },
    };
    const { policy, seed, max_instances, rivals } = rest;
    return { cluster, request: { ...request, memory_bytes: needed, policy, seed, max_instances, rivals } };
  });
