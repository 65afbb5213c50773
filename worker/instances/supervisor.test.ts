import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { NativeArenaStatus, NativeLoadStatus } from "../../native/bun-ffi-helpers/native.ts";
import type { LoadRequest } from "../../schema/cluster/instances.ts";
import type { LoadTrace } from "../../schema/cluster/loads.ts";
import { limits } from "../../schema/limits.ts";
import { instanceMemoryBytes } from "../../schema/memory.ts";
import { ManualClock, settle } from "../../test/support/manual-clock.ts";
import { begunLoad } from "../../test/support/native-load.ts";
import { type TinyCheckpoint, writeTinyCheckpoint } from "../../test/support/tiny-checkpoint.ts";
import { DiskTier } from "../checkpoints/disk-tier.ts";
import { HostTier } from "../checkpoints/host-tier.ts";
import { LinkQueue } from "../links/link-queue.ts";
import { Devices } from "./devices.ts";
import type { EngineObserver } from "./engine-process.ts";
import { Supervisor, type SupervisorOptions } from "./supervisor.ts";

const log = { info: () => {}, warn: () => {}, error: () => {} };

let folder: string;
let checkpoint: TinyCheckpoint;
let devices: Devices;
let engines: EngineObserver[];
let supervisor: Supervisor;
let traces: LoadTrace[];
/** Checkpoints in use. */
let uses: string[];
let options: SupervisorOptions;
/** Slots of the models that are likely to be wanted. */
let likely: number[];

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "sllm-supervisor-"));
  checkpoint = writeTinyCheckpoint(folder);
  const { model, weights } = checkpoint.manifest;
  const memory_bytes = 2 * instanceMemoryBytes(model, weights.bytes, { context_tokens: 64, slots: 1 });
  devices = new Devices([{ device_id: "cpu", kind: "cpu", memory_bytes, engine_name: null }]);
  engines = [];
  traces = [];
  uses = [];
  const clock = new ManualClock();
  const read: NativeLoadStatus = {
    ...begunLoad,
    state: "ready",
    bytes_done: weights.bytes,
    bytes_total: weights.bytes,
  };
  const arena: NativeArenaStatus = {
    arena_bytes: 2 ** 30,
    used_bytes: 0,
    faulted_bytes: 0,
    prefault_bytes: 0,
    prefault_ms: 0,
    prefaulting: false,
    huge_bytes: 0,
  };
  options = {
    disk: new DiskTier({ directory: folder, log }),
    host: new HostTier({
      store: { load: () => 1n, status: () => read, release: () => {}, arena: () => arena },
      clock,
      link: new LinkQueue({ link: "disk", parallel: 1, clock }),
      fileVersion: () => "",
      cacheBytes: () => 0,
      process_id: 1,
    }),
    devices,
    useCheckpoint: async (digest) => {
      uses.push(digest);
      return () => uses.splice(uses.indexOf(digest), 1);
    },
    launch: (observer) => {
      engines.push(observer);
      return {
        pid: engines.length,
        hasSkeleton: false,
        isRunning: () => true,
        lastLines: () => [],
        send: () => {},
        stop: async () => {},
        kill: () => {},
      };
    },
    engine: "llama",
    threads: 1,
    prefill_tokens: 256,
    adapters: 2,
    engine_queue: 8,
    engine_stall_ms: 60_000,
    engine_headroom_bytes: 0,
    clock,
    log,
    onChange: () => {},
    onLoading: () => {},
    onLoadEnded: (trace) => traces.push(trace),
    onLikely: (skeletons) => {
      likely = skeletons.map((skeleton) => skeleton.slots);
    },
  };
  supervisor = new Supervisor(options);
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const request = (n: number, change: Partial<LoadRequest> = {}): LoadRequest => ({
  protocol_version: 1,
  instance_id: `i-${String(n).padStart(16, "0")}`,
  model_id: "m",
  checkpoint: checkpoint.digest,
  device_id: "cpu",
  context_tokens: 64,
  slots: 1,
  ...change,
});

async function loadReady(n: number): Promise<void> {
  await supervisor.load(request(n));
  await settle();
  engines.at(-1)?.onMessage({ type: "ready", model_build_ms: 1, weights_wait_ms: 0 });
}

test("the same load asked for fifty times at once is one instance and one process", async () => {
  const all = await Promise.all(Array.from({ length: 50 }, () => supervisor.load(request(1))));
  expect(new Set(all).size).toBe(1);
  expect(engines).toHaveLength(1);
});

test("the same id with other settings is refused", async () => {
  await supervisor.load(request(1));
  await expect(supervisor.load(request(1, { slots: 2 }))).rejects.toMatchObject({ code: "state_conflict" });
});

test("memory is booked while an instance lives and given back when it is gone", async () => {
  await loadReady(1);
  await loadReady(2);
  await expect(supervisor.load(request(3))).rejects.toMatchObject({ code: "insufficient_memory" });
  await supervisor.unload(request(1).instance_id, { if_idle: true });
  await loadReady(3);
  expect(devices.freeBytes("cpu")).toBe(0);
});

test("an unknown checkpoint and an unknown device are refused without a trace", async () => {
  const unknown = supervisor.load(request(1, { checkpoint: "0".repeat(64) }));
  await expect(unknown).rejects.toMatchObject({ code: "checkpoint_unavailable" });
  await expect(supervisor.load(request(1, { device_id: "cuda9" }))).rejects.toMatchObject({
    code: "not_found",
  });
  expect(supervisor.reports()).toEqual([]);
  expect(engines).toEqual([]);
});

test("if_idle refuses while something runs or loads, and ends what is idle", async () => {
  const { instance_id } = request(1);
  await supervisor.load(request(1));
  await expect(supervisor.unload(instance_id, { if_idle: true })).rejects.toMatchObject({
    code: "instance_busy",
  });
  await settle();
  engines[0]?.onMessage({ type: "ready", model_build_ms: 1, weights_wait_ms: 0 });
  const number = supervisor.get(instance_id).submit(
    {
      prompt: { kind: "text", text: "x" },
      sampling: { temperature: 0, top_k: 0, top_p: 1, min_p: 0, seed: "1" },
      stop: [],
      max_tokens: 1,
      ignore_eos: false,
    },
    () => {},
  );
  await expect(supervisor.unload(instance_id, { if_idle: true })).rejects.toMatchObject({
    code: "instance_busy",
  });
  engines[0]?.onMessage({ type: "error", request: number, error: { code: "cancelled", message: "" } });
  await supervisor.unload(instance_id, { if_idle: true });
  expect(supervisor.status()).toEqual([]);
});

test("what has ended is reported until a gateway knows it", async () => {
  const { instance_id } = request(1);
  await loadReady(1);
  await supervisor.unload(instance_id, { if_idle: false });
  expect(supervisor.reports()).toMatchObject([{ instance_id, state: "gone" }]);
  await expect(supervisor.unload(instance_id, { if_idle: false })).rejects.toMatchObject({
    code: "not_found",
  });
  supervisor.forget([instance_id]);
  expect(supervisor.reports()).toEqual([]);
});

test("a failed instance stays in the reports with its reason until it is unloaded", async () => {
  const { instance_id } = request(1);
  await loadReady(1);
  engines[0]?.onEnd({ reason: "signal SIGKILL", last_lines: [] });
  supervisor.forget([instance_id]);
  expect(supervisor.reports()).toMatchObject([{ state: "failed", error: { code: "engine_killed" } }]);
  await supervisor.unload(instance_id, { if_idle: true });
  expect(supervisor.status()).toEqual([]);
});

test("without a gateway the reports of ended instances are bounded", async () => {
  for (let n = 1; n <= limits.instances + 20; n++) {
    await loadReady(n);
    await supervisor.unload(request(n).instance_id, { if_idle: false });
  }
  expect(supervisor.reports().length).toBeLessThanOrEqual(limits.instances + 1);
});

test("shutting down ends everything and starts nothing any more", async () => {
  await loadReady(1);
  await supervisor.stopAll();
  expect(supervisor.status()).toEqual([]);
  await expect(supervisor.load(request(2))).rejects.toMatchObject({ code: "state_conflict" });
});

test("a parked instance leaves its memory to others and needs it again to come back", async () => {
  await loadReady(1);
  await loadReady(2);
  const parking = supervisor.park(request(1).instance_id);
  engines[0]?.onMessage({ type: "parked", weights_kept: true });
  await parking;
  expect(devices.freeBytes("cpu")).toBeGreaterThan(0);
  await expect(supervisor.load(request(1, { slots: 2 }))).rejects.toMatchObject({ code: "state_conflict" });
  const resumed = await supervisor.load(request(1));
  expect(resumed.state).toBe("loading");
  expect(devices.freeBytes("cpu")).toBe(0);
});

test("without room a parked instance is told so and stays as it is", async () => {
  await loadReady(1);
  await loadReady(2);
  const parking = supervisor.park(request(1).instance_id);
  engines[0]?.onMessage({ type: "parked", weights_kept: true });
  await parking;
  devices.place("cpu").book("i-other", devices.freeBytes("cpu"));
  await expect(supervisor.load(request(1))).rejects.toMatchObject({ code: "insufficient_memory" });
  expect(supervisor.get(request(1).instance_id).state).toBe("parked");
});

test("what ran and runs no more is likely to be wanted; a parked instance counts as running", async () => {
  await loadReady(1);
  expect(likely).toEqual([]);
  const parking = supervisor.park(request(1).instance_id);
  engines[0]?.onMessage({ type: "parked", weights_kept: true });
  await parking;
  expect(likely).toEqual([]);
  await supervisor.unload(request(1).instance_id, { if_idle: true });
  expect(likely).toEqual([1]);
});

test("where weights are repacked an instance books them twice, and a deterministic one once", async () => {
  const { model, weights } = checkpoint.manifest;
  const settings = { context_tokens: 64, slots: 1 };
  const once = instanceMemoryBytes(model, weights.bytes, settings);
  const memory_bytes = 4 * once;
  const repacking = {
    device_id: "cpu",
    kind: "cpu",
    memory_bytes,
    engine_name: null,
    repacks: true,
  } as const;
  const own = new Devices([repacking]);
  expect(own.reports()).toEqual([{ device_id: "cpu", kind: "cpu", memory_bytes, repacks: true }]);
  const on = new Supervisor({ ...options, devices: own });
  await on.load(request(1));
  expect(memory_bytes - own.freeBytes("cpu")).toBe(once + weights.bytes);
  await on.load(request(2, { deterministic: true }));
  const exact = instanceMemoryBytes(model, weights.bytes, { ...settings, deterministic: true });
  expect(memory_bytes - own.freeBytes("cpu")).toBe(once + weights.bytes + exact);
});

test("memory for adapters that is asked for with the load is booked with it", async () => {
  const before = devices.freeBytes("cpu");
  await supervisor.load(request(1, { adapter_bytes: 4_096 }));
  const { model, weights } = checkpoint.manifest;
  const settings = { context_tokens: 64, slots: 1, adapter_bytes: 4_096 };
  expect(before - devices.freeBytes("cpu")).toBe(instanceMemoryBytes(model, weights.bytes, settings));
  await expect(supervisor.load(request(1))).rejects.toMatchObject({ code: "state_conflict" });
});
