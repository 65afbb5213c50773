import { beforeEach, expect, test } from "bun:test";
import { limits } from "../../schema/limits.ts";
import { InstanceScene, settings } from "../../test/support/instance-scene.ts";
import { settle } from "../../test/support/manual-clock.ts";

let scene: InstanceScene;
beforeEach(async () => {
  scene = new InstanceScene();
  await scene.makeReady();
  scene.sent.length = 0;
});

/** The engine's answer to a park. */
async function confirm(weights_kept = true): Promise<void> {
  scene.observer?.onMessage({ type: "parked", weights_kept });
  await settle();
}

async function park(): Promise<void> {
  const parking = scene.instance.park();
  await confirm();
  await parking;
}

async function engineIsReady(): Promise<void> {
  scene.observer?.onMessage({ type: "ready", model_build_ms: 7, weights_wait_ms: 0 });
  await settle();
}

test("an idle instance parks: no requests from the first moment, less memory when the engine confirms", async () => {
  const parking = scene.instance.park();
  expect(scene.instance.state).toBe("parked");
  expect(() => scene.instance.submit(settings, () => {})).toThrow("ready instance");
  expect(scene.sent).toEqual([{ op: "park", keep_weights: true }]);
  expect(scene.booked).toEqual([]);
  await confirm();
  await parking;
  expect(scene.booked).toEqual(["parked"]);
  expect(scene.leaseReleases).toBe(0);
});

test("a busy instance is not parked, nor one that loads; parking twice is one park", async () => {
  scene.instance.submit(settings, () => {});
  await expect(scene.instance.park()).rejects.toMatchObject({ code: "instance_busy" });
  const loading = new InstanceScene();
  void loading.instance.load();
  await expect(loading.instance.park()).rejects.toMatchObject({ code: "state_conflict" });
  scene.observer?.onMessage({ type: "error", request: 1, error: { code: "cancelled", message: "" } });
  await Promise.all([scene.instance.park(), scene.instance.park(), confirm()]);
  expect(scene.sent.filter((command) => command.op === "park")).toHaveLength(1);
});

test("it comes back with the copy that it kept, and its timings say what that took", async () => {
  await park();
  await scene.clock.advance(1_000);
  await scene.instance.resume();
  expect(scene.instance.state).toBe("loading");
  expect(scene.booked).toEqual(["parked", "running"]);
  expect(scene.leases).toBe(1);
  expect(scene.sent.at(-1)).toEqual({ op: "attach", weights_path: "/proc/1/fd/9" });
  await scene.clock.advance(3);
  await engineIsReady();
  expect(scene.instance.loadEvent()).toEqual({
    type: "ready",
    timings: {
      process_start_ms: 0,
      disk_read_ms: 0,
      disk_read_bytes: 0,
      model_build_ms: 0,
      resume_ms: 3,
      total_ms: 3,
    },
  });
  expect(scene.instance.submit(settings, () => {})).toBe(1);
});

test("an evicted copy is let go before the tier may use its memory, and taken anew by a resume", async () => {
  await park();
  let isFree = false;
  const evicting = scene.evict().then(() => {
    isFree = true;
  });
  await settle();
  expect(scene.sent.at(-1)).toEqual({ op: "park", keep_weights: false });
  await scene.instance.resume();
  await settle();
  expect(isFree).toBe(false);
  expect(scene.sent.at(-1)).toEqual({ op: "attach", weights_path: "/proc/1/fd/10" });
  await confirm(false);
  await evicting;
  await engineIsReady();
  expect(scene.instance.state).toBe("ready");
  expect(scene.leaseReleases).toBe(0);
});

test("without memory a resume is refused, and the instance stays parked for another try", async () => {
  await park();
  scene.isFull = true;
  await expect(scene.instance.resume()).rejects.toMatchObject({ code: "insufficient_memory" });
  expect(scene.instance.state).toBe("parked");
  scene.isFull = false;
  await Promise.all([scene.instance.resume(), scene.instance.resume()]);
  await engineIsReady();
  expect(scene.instance.state).toBe("ready");
  expect(scene.booked).toEqual(["parked", "running"]);
});

test("a resume that comes while it parks follows the park", async () => {
  const parking = scene.instance.park();
  const resuming = scene.instance.resume();
  await settle();
  expect(scene.sent).toHaveLength(1);
  await confirm();
  await Promise.all([parking, resuming]);
  expect(scene.sent.map((command) => command.op)).toEqual(["park", "attach"]);
});

test("a parked engine that dies fails the instance and gives everything back", async () => {
  await park();
  scene.end("signal SIGKILL");
  expect(scene.instance.state).toBe("failed");
  expect([scene.memoryReleases, scene.leaseReleases]).toEqual([1, 1]);
});

test("an engine that ends while it parks fails the park", async () => {
  const parking = scene.instance.park();
  scene.end("signal SIGKILL");
  await expect(parking).rejects.toMatchObject({ code: "engine_failed" });
  expect(scene.instance.state).toBe("failed");
  expect(scene.booked).toEqual([]);
});

test("an engine that does not let a copy go is killed: then it surely has", async () => {
  await park();
  const evicting = scene.evict();
  await scene.clock.advance(limits.engine_park_ms);
  expect(scene.killed).toBe(1);
  scene.end("signal SIGKILL");
  await evicting;
  expect(scene.instance.state).toBe("failed");
});

test("a parked instance is stopped as any other", async () => {
  await park();
  await scene.instance.stop();
  expect(scene.instance.state).toBe("gone");
  expect([scene.memoryReleases, scene.leaseReleases]).toEqual([1, 1]);
});

test("a process that has the skeleton is only given weights, and costs no build", async () => {
  const built = new InstanceScene();
  built.hasSkeleton = true;
  await built.makeReady();
  expect(built.sent).toEqual([{ op: "attach", weights_path: "/proc/1/fd/9" }]);
  expect(built.instance.loadEvent()).toMatchObject({ type: "ready", timings: { model_build_ms: 0 } });
});
