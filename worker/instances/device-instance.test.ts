import { beforeEach, expect, test } from "bun:test";
import { InstanceScene, manifest } from "../../test/support/instance-scene.ts";
import { settle } from "../../test/support/manual-clock.ts";

let scene: InstanceScene;
beforeEach(() => {
  scene = new InstanceScene({ engine_devices: "CUDA0", computesOnHostCopy: false, repacks: false });
});

test("the engine is told its devices", async () => {
  void scene.instance.load();
  scene.header.resolve();
  await settle();
  expect(scene.sent).toMatchObject([{ op: "load", devices: "CUDA0" }]);
});

test("the host copy is let go when the weights are on the device, and only then", async () => {
  void scene.instance.load();
  scene.header.resolve();
  await settle();
  scene.observer?.onMessage({ type: "hello", pid: 4711, abi_version: 1 });
  await scene.setRead({ state: "ready", bytes_done: manifest.weights.bytes });
  expect(scene.leaseReleases).toBe(0);
  const upload = { bytes: manifest.weights.bytes, upload_ms: 5, wait_ms: 2 };
  scene.observer?.onMessage({ type: "ready", model_build_ms: 7, weights_wait_ms: 0, upload });
  expect(scene.instance.state).toBe("ready");
  expect(scene.leaseReleases).toBe(1);
  expect(scene.instance.loadEvent()).toMatchObject({
    type: "ready",
    timings: { upload_ms: 5, upload_bytes: manifest.weights.bytes },
  });
  await scene.instance.stop();
  expect([scene.leaseReleases, scene.memoryReleases]).toEqual([1, 1]);
});

test("it refuses to be parked and goes on", async () => {
  await scene.makeReady();
  scene.sent.length = 0;
  await expect(scene.instance.park()).rejects.toMatchObject({ code: "state_conflict" });
  expect([scene.instance.state, scene.sent.length]).toEqual(["ready", 0]);
});
