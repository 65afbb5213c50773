import { beforeEach, expect, test } from "bun:test";
import type { GenerationEvent } from "../../schema/cluster/generate.ts";
import type { LoadEvent } from "../../schema/cluster/instances.ts";
import { busyEngine } from "../../test/support/cluster-facts.ts";
import { directory, InstanceScene, manifest, settings } from "../../test/support/instance-scene.ts";
import { settle } from "../../test/support/manual-clock.ts";
import { LoadReader } from "./load-reader.ts";

let scene: InstanceScene;
beforeEach(() => {
  scene = new InstanceScene();
});

test("process and read start together; the engine sees the checkpoint only when its header is good", async () => {
  void scene.instance.load();
  expect(scene.observer).not.toBeNull();
  await settle();
  expect(scene.sent).toEqual([]);
  scene.header.resolve();
  await settle();
  expect(scene.sent).toEqual([
    {
      op: "load",
      engine: "llama",
      header_path: "/data/tiny/header.gguf",
      weights_path: "/proc/1/fd/9",
      weights_bytes: manifest.weights.bytes,
      context_tokens: 64,
      slots: 2,
      threads: 3,
      prefill_tokens: 256,
      queue: 8,
    },
  ]);
});

test("ready is an engine with a model and a copy with all its bytes, whichever comes last", async () => {
  void scene.instance.load();
  scene.header.resolve();
  await settle();
  scene.observer?.onMessage({ type: "ready", model_build_ms: 7, weights_wait_ms: 0 });
  expect(scene.instance.state).toBe("loading");
  await scene.setRead({ state: "ready", bytes_done: manifest.weights.bytes });
  expect(scene.instance.state).toBe("ready");
});

test("the timings tell where the start's time went, and that memory needed no read", async () => {
  scene.wasPresent = true;
  void scene.instance.load();
  scene.header.resolve();
  await scene.clock.advance(30);
  scene.observer?.onMessage({ type: "hello", pid: 4711, abi_version: 1 });
  await scene.setRead({ state: "ready", read_ms: 12 });
  await scene.clock.advance(20);
  scene.observer?.onMessage({ type: "ready", model_build_ms: 7, weights_wait_ms: 0 });
  expect(scene.instance.loadEvent()).toEqual({
    type: "ready",
    timings: {
      process_start_ms: 30,
      disk_read_ms: 0,
      disk_read_bytes: 0,
      model_build_ms: 7,
      resume_ms: 0,
      total_ms: 50,
    },
  });
});

test("a process from the reserve costs no start, and its late answer to the reserve changes nothing", async () => {
  scene.wasStandby = true;
  await scene.makeReady();
  scene.observer?.onMessage({ type: "warm" });
  expect(scene.instance.loadEvent()).toMatchObject({ type: "ready", timings: { process_start_ms: 0 } });
});

test("a bad header fails the load and the engine is killed before it saw the checkpoint", async () => {
  void scene.instance.load();
  scene.header.reject(new Error("differs"));
  await settle();
  expect(scene.instance.state).toBe("failed");
  expect(scene.sent).toEqual([]);
  expect(scene.killed).toBe(1);
});

test("a failed read fails the load in the store's words, even if the engine reports first", async () => {
  void scene.instance.load();
  scene.header.resolve();
  await settle();
  const message = `${directory}/weights.bin: wrong digest at offset 0`;
  scene.read = { ...scene.read, state: "failed", failure: { status_name: "SLLM_E_CORRUPT", message } };
  scene.observer?.onMessage({
    type: "failed",
    error: { code: "model_load_failed", message: "engine's words" },
  });
  expect(scene.instance.error).toEqual({
    code: "checkpoint_invalid",
    message: "weights.bin: wrong digest at offset 0",
  });
});

test("what a failed instance holds is let go once, when its process is gone", async () => {
  await scene.makeReady();
  scene.observer?.onMessage({ type: "failed", error: { code: "engine_failed", message: "decode" } });
  expect(scene.instance.state).toBe("failed");
  expect([scene.memoryReleases, scene.leaseReleases]).toEqual([0, 0]);
  scene.end("signal SIGKILL");
  expect([scene.memoryReleases, scene.leaseReleases]).toEqual([1, 1]);
  await scene.instance.stop();
  expect(scene.instance.state).toBe("gone");
  expect([scene.memoryReleases, scene.leaseReleases]).toEqual([1, 1]);
});

test("an engine that stays silent is killed after the hello time-out", async () => {
  void scene.instance.load();
  await scene.clock.advance(29_999);
  expect(scene.instance.state).toBe("loading");
  await scene.clock.advance(1);
  expect(scene.instance.error?.code).toBe("model_load_failed");
  expect(scene.killed).toBe(1);
});

test("a crash ends every running generation with an error and keeps the last words for operators", async () => {
  await scene.makeReady();
  const events: GenerationEvent[] = [];
  const first = scene.instance.submit(settings, (event) => events.push(event));
  scene.instance.submit(settings, (event) => events.push(event));
  scene.observer?.onMessage({ type: "started", request: first, prompt_tokens: 1 });
  expect(scene.instance.report()).toMatchObject({ active: 1, queued: 1 });
  scene.end("signal SIGSEGV", ["ggml: assertion failed"]);
  expect(events.map((e) => e.type)).toEqual(["started", "error", "error"]);
  expect(scene.instance.state).toBe("failed");
  expect(scene.instance.error?.message).toContain("assertion failed");
  expect(JSON.stringify(events)).not.toContain("assertion failed");
  expect(scene.instance.report()).toMatchObject({ active: 0, queued: 0 });
});

test("stopping while it loads ends it as gone, and late messages change nothing", async () => {
  void scene.instance.load();
  scene.header.resolve();
  await settle();
  const { observer } = scene;
  await scene.instance.stop();
  expect(scene.instance.state).toBe("gone");
  observer?.onMessage({ type: "ready", model_build_ms: 1, weights_wait_ms: 0 });
  expect(scene.instance.state).toBe("gone");
  expect(scene.instance.loadEvent()).toMatchObject({ type: "failed", error: { code: "cancelled" } });
});

test("stopping twice is one stop, and what runs is cancelled", async () => {
  await scene.makeReady();
  const events: GenerationEvent[] = [];
  scene.instance.submit(settings, (event) => events.push(event));
  await Promise.all([scene.instance.stop(), scene.instance.stop()]);
  expect(events).toEqual([
    { type: "error", error: { code: "worker_unavailable", message: "The instance was stopped." } },
  ]);
  expect(scene.memoryReleases).toBe(1);
});

test("a cancel goes to the engine as long as the request runs", async () => {
  await scene.makeReady();
  const number = scene.instance.submit(settings, () => {});
  scene.instance.cancel(number);
  const error = { code: "cancelled", message: "" } as const;
  scene.observer?.onMessage({ type: "error", request: number, error });
  scene.instance.cancel(number);
  expect(scene.sent.filter((command) => command.op === "cancel")).toHaveLength(1);
  expect(scene.instance.isBusy).toBe(false);
});

test("readers of a load see progress now and then, with an estimate, and its end", async () => {
  void scene.instance.load();
  scene.header.resolve();
  const reader = new LoadReader(scene.instance, scene.clock);
  expect(await reader.next()).toMatchObject({ type: "progress", bytes_done: 0, eta_ms: null });
  const events: (LoadEvent | null)[] = [];
  const reading = (async () => {
    for (let event = await reader.next(); event !== null; event = await reader.next()) events.push(event);
  })();
  await scene.setRead({ bytes_done: 2048, read_ms: 10 });
  expect(events).toEqual([]);
  await scene.clock.advance(100);
  await scene.setRead({ bytes_done: 4096, read_ms: 20 });
  expect(events).toEqual([{ type: "progress", bytes_done: 4096, bytes_total: 8192, eta_ms: 20 }]);
  scene.end("status 1");
  await reading;
  expect(events.at(-1)).toMatchObject({ type: "failed", error: { code: "model_load_failed" } });
});

test("a reader that leaves stops waiting; the load goes on", async () => {
  void scene.instance.load();
  const reader = new LoadReader(scene.instance, scene.clock);
  await reader.next();
  const pending = reader.next();
  reader.close();
  expect(await pending).toBeNull();
  expect(scene.instance.state).toBe("loading");
});

test("a load leaves one trace, whichever way it ends, and a stop while it waits for the disk leaves the queue", async () => {
  await scene.makeReady();
  expect(scene.traces).toMatchObject([{ outcome: "ready", error: null, source: "disk" }]);
  expect(scene.traces[0]?.stages.map((s) => s.stage)).toEqual(["process", "header_check", "model_build"]);
  scene.end("signal SIGKILL");
  expect(scene.traces).toHaveLength(1);
  const failing = new InstanceScene();
  void failing.instance.load();
  await settle();
  failing.end("status 1");
  expect(failing.traces).toMatchObject([{ outcome: "failed", error: { code: "model_load_failed" } }]);
  const stopped = new InstanceScene();
  void stopped.instance.load();
  await stopped.instance.stop();
  expect(stopped.traces).toMatchObject([{ outcome: "stopped", error: { code: "cancelled" } }]);
});

test("an engine that stops giving signs of life is ended with the reason, and its requests with it", async () => {
  await scene.makeReady();
  const events: GenerationEvent[] = [];
  scene.instance.submit(settings, (event) => events.push(event));
  for (let second = 0; second < 59; second++) await scene.clock.advance(1_000);
  expect(scene.instance.state).toBe("ready");
  await scene.clock.advance(1_000);
  const message = "The engine process has not answered for 60 s; it was ended.";
  expect(scene.instance.report()).toMatchObject({
    state: "failed",
    error: { code: "engine_failed", message },
  });
  expect([scene.killed, events]).toEqual([1, [{ type: "error", error: { code: "engine_failed", message } }]]);
});

test("what the engine is at is in the report, without what only the watchdog needs", async () => {
  await scene.makeReady();
  expect(scene.instance.report()).not.toHaveProperty("activity");
  scene.observer?.onMessage({ type: "beat", activity: { ...busyEngine, progress: 9, computing: true } });
  expect(scene.instance.report()).toMatchObject({ activity: busyEngine });
  scene.observer?.onMessage({ type: "beat", activity: null });
  expect(scene.instance.report().activity).toEqual(busyEngine);
});

test("its memory is bounded before it builds anything", async () => {
  const limited = new InstanceScene(undefined, 1e9);
  void limited.instance.load();
  limited.header.resolve();
  await settle();
  expect(limited.sent.map((command) => command.op)).toEqual(["limit", "load"]);
  expect(limited.sent[0]).toEqual({ op: "limit", private_bytes: 1e9 });
});

test("what an engine that stopped said last is for operators, not for its clients", async () => {
  await scene.makeReady();
  const events: GenerationEvent[] = [];
  scene.instance.submit(settings, (event) => events.push(event));
  scene.lastLines = ["ggml: waiting for the device", "still waiting"];
  for (let second = 0; second < 60; second++) await scene.clock.advance(1_000);
  expect(scene.instance.error?.message).toMatch(
    /60 s.*Its last words: ggml: waiting for the device\nstill waiting$/s,
  );
  const last = events.at(-1);
  expect(last?.type === "error" ? last.error.message : "").toMatch(/60 s; it was ended\.$/);
});
