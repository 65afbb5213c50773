/** What a start is expected to take: links, loads begun since the last report, what the engine begins with. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { StandbyReport } from "../../schema/cluster/membership.ts";
import { checkProperty } from "../../test/support/property.ts";
import { ClusterIndex } from "./cluster-index.ts";
import { estimateTravel, noBytes, readyMs, startState } from "./estimate.ts";
import { type Estimates, type ModelEstimates, nominalEstimates, startHows } from "./estimates.ts";
import { type ClusterFacts, type InstanceUsage, type InstanceView, unused } from "./view.ts";

const checkpoint = "c".repeat(64);
const now_ms = 1_000_000;

interface Scene {
  readonly queued_ms?: number;
  readonly loading?: readonly Partial<InstanceUsage>[];
  readonly model?: Partial<ModelEstimates>;
  readonly standby?: StandbyReport | null;
  readonly states?: readonly InstanceView["state"][];
  readonly remote?: ClusterFacts["remote"];
}

const nothingElsewhere = { peer: false, origin: false };

/** One host with one device; its disk does 1,000 bytes a millisecond. */
function scene({
  queued_ms = 0,
  loading = [],
  model = {},
  standby = null,
  states = [],
  remote = nothingElsewhere,
}: Scene) {
  const at = { worker_id: "w", device_id: "cpu" };
  const usages = [...loading, ...states.map(() => ({ in_flight: 0 }))];
  const instances = usages.map((_, i) => ({
    ...{ instance_id: `i-${i}`, model_id: "other", checkpoint, ...at, slots: 1, memory_bytes: 1 },
    state: states[i - loading.length] ?? ("loading" as const),
  }));
  const facts: ClusterFacts = {
    workers: [{ worker_id: "w", accepting: true }],
    devices: [{ ...at, kind: "cpu", memory_bytes: 1_000, reserved_bytes: instances.length }],
    sources: [],
    links: [{ worker_id: "w", link: "disk", queued_ms, bandwidth_bytes_per_s: 1_000_000 }],
    problems: [],
    instances,
    usage: new Map(usages.map((usage, i) => [`i-${i}`, { ...unused, ...usage }])),
    remote,
  };
  const learned: ModelEstimates = { ...nominalEstimates.model("m"), initMs: () => 0, ...model };
  const estimates: Estimates = { model: () => learned, links: () => null };
  const view = new ClusterIndex(facts, estimates, new Map(), new Map(), () => standby);
  const [host] = view.hosts;
  const [device] = host?.devices ?? [];
  if (host === undefined || device === undefined) throw new Error("no host");
  const travel = (bytes: number) => {
    const found = estimateTravel(
      view,
      learned,
      host,
      { weights_bytes: bytes, now_ms },
      { ...noBytes, disk: bytes },
      false,
    );
    if (found === null) throw new Error("bytes are missing");
    return found;
  };
  const ready = (bytes: number) =>
    readyMs(learned, device, travel(bytes), startState(host, checkpoint, travel(bytes), false));
  return { view, host, device, travel, ready };
}

describe("bytes", () => {
  test("come behind what the worker has queued, or behind loads begun since, whichever ends later", () => {
    expect(scene({ queued_ms: 300 }).travel(5_000)).toMatchObject({ queued_ms: 300, arrival_ms: 305 });
    const begun = [{ arrives_at_ms: now_ms + 400 }, { arrives_at_ms: now_ms + 700 }];
    expect(scene({ queued_ms: 300, loading: begun }).travel(5_000).arrival_ms).toBe(705);
    expect(scene({ queued_ms: 900, loading: begun }).travel(5_000).arrival_ms).toBe(905);
  });

  test("wait for no load that is due already, nor for one that reads nothing", () => {
    const over = [{ arrives_at_ms: now_ms - 1 }, { arrives_at_ms: null }];
    expect(scene({ loading: over }).travel(5_000)).toMatchObject({ queued_ms: 0, arrival_ms: 5 });
  });

  test("wait for those that were begun over the same link: a fetch for fetches, a read for reads", () => {
    const begun = [{ arrives_at_ms: now_ms + 700, is_fetched: true }, { arrives_at_ms: now_ms + 400 }];
    expect(scene({ loading: begun }).travel(5_000).queued_ms).toBe(400);
    const { view, host } = scene({ loading: begun, remote: { peer: false, origin: true } });
    const model = nominalEstimates.model("m");
    const travel = estimateTravel(view, model, host, { weights_bytes: 5_000, now_ms }, noBytes, false);
    expect(travel?.queued_ms).toBe(700);
  });

  test("come as fast as this model's file was read there, if it was", () => {
    expect(scene({ model: { diskBytesPerMs: () => 100 } }).travel(5_000).arrival_ms).toBe(50);
  });
});

describe("the engine", () => {
  test("builds its model while bytes travel: the later of both counts, then the init", () => {
    const model = { buildMs: () => 200, initMs: () => 30 };
    expect(scene({ model }).ready(100_000)).toBe(230);
    expect(scene({ model }).ready(500_000)).toBe(530);
    // It is told its model when its read begins.
    expect(scene({ model, queued_ms: 1_000 }).ready(100_000)).toBe(1_230);
  });

  test("begins with what its worker says it has in reserve", () => {
    const how = (standby: StandbyReport | null, isParked = false) =>
      startState(scene({ standby }).host, checkpoint, { tier: "disk" }, isParked).how;
    expect(how(null)).toBe("cold");
    expect(how({ warm: 0, built: [] })).toBe("cold");
    expect(how({ warm: 1, built: [] })).toBe("warm");
    expect(how({ warm: 1, built: [checkpoint] })).toBe("built");
    expect(how({ warm: 1, built: [checkpoint] }, true)).toBe("resume");
  });

  test("is beside others while any instance of its host loads or is in use", () => {
    const isBeside = (fields: Scene) =>
      startState(scene(fields).host, checkpoint, { tier: "disk" }, false).is_beside;
    expect(isBeside({})).toBe(false);
    expect(isBeside({ states: ["ready", "parked"] })).toBe(false);
    expect(isBeside({ loading: [{ in_flight: 1 }] })).toBe(true);
    const { view, host } = scene({ states: ["ready"] });
    const [instance] = view.instancesOf("other");
    if (instance === undefined) throw new Error("no instance");
    view.put(instance.view, { ...unused, in_flight: 1 });
    expect(host.working).toBe(1);
    view.put(instance.view, unused);
    expect(host.working).toBe(0);
    view.put({ ...instance.view, state: "loading" }, unused);
    expect([host.working, host.loading.size]).toEqual([1, 1]);
    view.remove(instance.view.instance_id);
    expect([host.working, host.loading.size]).toEqual([0, 0]);
  });
});

test("whatever the host: more bytes, a longer queue, a longer build or init never make a start sooner", () => {
  const time = fc.integer({ min: 0, max: 10_000 });
  const some = fc.record({
    queued_ms: time,
    begun_ms: time,
    build_ms: time,
    init_ms: time,
    bytes: fc.integer({ min: 1, max: 10_000_000 }),
    more: fc.constantFrom("queued_ms", "begun_ms", "build_ms", "init_ms", "bytes"),
    how: fc.constantFrom(...startHows),
  });
  checkProperty(some, ({ more, ...given }) => {
    const ready = ({ queued_ms, begun_ms, build_ms, init_ms, bytes }: typeof given) =>
      scene({
        queued_ms,
        loading: [{ arrives_at_ms: now_ms + begun_ms }],
        model: { buildMs: () => build_ms, initMs: () => init_ms },
      }).ready(bytes);
    const before = ready(given);
    expect(before).toBeGreaterThanOrEqual(given.queued_ms + given.init_ms);
    expect(ready({ ...given, [more]: given[more] + 1_000 })).toBeGreaterThanOrEqual(before);
  });
});
