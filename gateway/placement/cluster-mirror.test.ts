/** What a gateway knows from reads of what changed: nothing forgotten, nothing kept that is over, news told from noise. */
import { expect, test } from "bun:test";
import type {
  AdapterRow,
  DeviceRow,
  InstanceRow,
  ModelRow,
  PlacementRow,
  WorkerRow,
} from "../../schema/db/tables.ts";
import type { ClusterChanges } from "../ports.ts";
import { ClusterMirror } from "./cluster-mirror.ts";

const at = new Date(0);
const worker = (worker_id: string, fields: Partial<WorkerRow> = {}): WorkerRow => ({
  worker_id,
  incarnation: "a",
  state: "ready",
  url: "http://w",
  version: "0",
  heartbeat_sequence: 0,
  last_heartbeat_at: at,
  links: [],
  problems: [],
  created_at: at,
  ...fields,
});
const device = (worker_id: string): DeviceRow => ({
  worker_id,
  device_id: "cpu",
  kind: "cpu",
  memory_bytes: 1_000,
  reserved_bytes: 0,
  repacks: false,
});
const placement = (worker_id: string, checkpoint: string): PlacementRow => ({
  worker_id,
  checkpoint,
  tier: "disk",
  state: "present",
  bytes_present: 1,
  updated_at: at,
});
const instance = (instance_id: string, fields: Partial<InstanceRow> = {}): InstanceRow => ({
  instance_id,
  model_id: "m",
  checkpoint: "c",
  worker_id: "w-1",
  incarnation: "a",
  device_id: "cpu",
  state: "ready",
  context_tokens: 64,
  slots: 1,
  kv_tokens: null,
  deterministic: false,
  adapter_bytes: 0,
  fingerprint: null,
  memory_bytes: 400,
  error_code: null,
  error_message: null,
  created_at: at,
  ready_at: null,
  last_used_at: null,
  ended_at: null,
  ...fields,
});

const changes = (fields: Partial<ClusterChanges>): ClusterChanges => ({
  mark: 2,
  isWhole: false,
  read_at: at,
  workers: [],
  holders: [],
  devices: [],
  placements: [],
  instances: [],
  models: [],
  adapters: [],
  leases: [],
  ...fields,
});

function mirrorOfTwo(): ClusterMirror {
  const mirror = new ClusterMirror();
  mirror.take(
    changes({
      isWhole: true,
      mark: 1,
      workers: [worker("w-1"), worker("w-2")],
      holders: ["w-1", "w-2"],
      devices: [device("w-1"), device("w-2")],
      placements: [placement("w-1", "c"), placement("w-2", "c")],
      instances: [instance("i-1")],
    }),
  );
  return mirror;
}

test("signs of life are no news, everything a decision depends on is", () => {
  const mirror = mirrorOfTwo();
  const { placements, instances } = mirror.snapshot;
  expect(mirror.take(changes({ mark: 7, workers: [worker("w-1", { heartbeat_sequence: 9 })] }))).toBe(false);
  expect(mirror.mark).toBe(7);
  expect(mirror.snapshot.workers[0]?.heartbeat_sequence).toBe(9);
  expect(mirror.snapshot.placements).toBe(placements);
  expect(mirror.snapshot.instances).toBe(instances);
  const link = { link: "disk", queued_bytes: 1, queued_ms: 1, bandwidth_bytes_per_s: null };
  const news: Partial<ClusterChanges>[] = [
    { workers: [worker("w-1", { state: "lost" })] },
    { workers: [worker("w-1", { incarnation: "b" })] },
    { workers: [worker("w-1", { links: [link] })] },
    { workers: [worker("w-3")] },
    { holders: ["w-2"] },
    { instances: [instance("i-2")] },
  ];
  for (const fields of news) expect(mirrorOfTwo().take(changes(fields))).toBe(true);
});

test("what a worker holds is replaced as a whole, what others hold stays", () => {
  const mirror = mirrorOfTwo();
  mirror.take(changes({ holders: ["w-1"], devices: [device("w-1")], placements: [placement("w-1", "d")] }));
  const held = mirror.snapshot.placements.map((row) => `${row.worker_id} ${row.checkpoint}`);
  expect(held).toEqual(["w-1 d", "w-2 c"]);
  mirror.take(changes({ holders: ["w-2"], devices: [device("w-2")] }));
  expect(mirror.placementsOf("w-2")).toEqual([]);
});

test("instances that ended are gone, and what they booked is free", () => {
  const mirror = mirrorOfTwo();
  const reserved = () => mirror.snapshot.devices.map((row) => row.reserved_bytes);
  expect(reserved()).toEqual([400, 0]);
  mirror.take(changes({ instances: [instance("i-2", { worker_id: "w-2", memory_bytes: 70 })] }));
  expect(reserved()).toEqual([400, 70]);
  mirror.take(changes({ instances: [instance("i-1", { state: "failed" })] }));
  expect(reserved()).toEqual([0, 70]);
  expect(mirror.instance("i-1")).toBeUndefined();
});

test("a whole read forgets what it does not name", () => {
  const mirror = mirrorOfTwo();
  mirror.take(
    changes({ isWhole: true, workers: [worker("w-2")], holders: ["w-2"], devices: [device("w-2")] }),
  );
  expect(mirror.snapshot).toMatchObject({ workers: [{ worker_id: "w-2" }], placements: [], instances: [] });
  expect(mirror.worker("w-1")).toBeUndefined();
});

test("adapters are those of the last read of their model, and go with it", () => {
  const mirror = mirrorOfTwo();
  const model: ModelRow = {
    ...{ model_id: "m", state: "active", checkpoint: "c", context_tokens: 64, slots: 1, kv_tokens: null },
    ...{ deterministic: false, keep_alive_ms: 1, created_at: at, preload: false, queue_delay_ms: 1 },
    ...{ min_instances: 0, max_instances: null, target_concurrency: null },
  };
  const adapter = (name: string): AdapterRow => ({
    ...{ model_id: "m", name, checkpoint: "a", rank: 4, weights_bytes: 1, created_at: at },
  });
  mirror.take(changes({ models: [model], adapters: [adapter("arts"), adapter("legal")] }));
  expect(mirror.adaptersOf("m").map(({ name }) => name)).toEqual(["arts", "legal"]);
  mirror.take(changes({ workers: [worker("w-1")] }));
  expect(mirror.snapshot.adapters).toHaveLength(2);
  mirror.take(changes({ models: [model], adapters: [adapter("legal")] }));
  expect(mirror.snapshot.adapters.map(({ name }) => name)).toEqual(["legal"]);
  mirror.take(changes({ isWhole: true }));
  expect(mirror.adaptersOf("m")).toEqual([]);
});
