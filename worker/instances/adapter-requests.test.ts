import { beforeEach, expect, test } from "bun:test";
import type { GenerationEvent } from "../../schema/cluster/generate.ts";
import { adapterBytes, InstanceScene, settings } from "../../test/support/instance-scene.ts";
import { settle } from "../../test/support/manual-clock.ts";

let scene: InstanceScene;
beforeEach(() => {
  scene = new InstanceScene();
});

const adapter = "a".repeat(64);

test("a request with an adapter waits until the engine has it, and lets it go when it ends", async () => {
  await scene.makeReady();
  const events: GenerationEvent[] = [];
  const request = scene.instance.submit(settings, (event) => events.push(event), adapter);
  await settle();
  expect(scene.instance.isBusy).toBe(true);
  expect(scene.sent.at(-1)).toEqual({
    op: "add_adapter",
    adapter: 1,
    header_path: `${adapter}/header.gguf`,
    weights_path: "/proc/1/fd/99",
    weights_bytes: adapterBytes,
  });
  expect(scene.booked).toEqual([`adapters ${adapterBytes}`]);
  scene.observer?.onMessage({ type: "adapter_added", adapter: 1 });
  await settle();
  expect(scene.sent.at(-1)).toMatchObject({ op: "generate", request, adapter: 1 });
  expect(scene.adapterReleases).toBe(1);
  const error = { code: "cancelled", message: "x" } as const;
  scene.observer?.onMessage({ type: "error", request, error });
  expect(scene.instance.isBusy).toBe(false);
  // Kept for the next one.
  const again = scene.instance.submit(settings, () => {}, adapter);
  await settle();
  expect(scene.sent.at(-1)).toMatchObject({ op: "generate", request: again, adapter: 1 });
});

test("a request that is cancelled while its adapter comes never reaches the engine", async () => {
  await scene.makeReady();
  const events: GenerationEvent[] = [];
  const request = scene.instance.submit(settings, (event) => events.push(event), adapter);
  await settle();
  scene.instance.cancel(request);
  expect(events).toMatchObject([{ type: "error", error: { code: "cancelled" } }]);
  // The engine is still given the adapter, so it cannot be parked yet.
  expect(scene.instance.isBusy).toBe(true);
  scene.observer?.onMessage({ type: "adapter_added", adapter: 1 });
  await settle();
  expect(scene.sent.filter(({ op }) => op === "generate" || op === "cancel")).toEqual([]);
  expect(scene.instance.isBusy).toBe(false);
});

test("an adapter without memory or that the engine refuses ends its request alone", async () => {
  await scene.makeReady();
  const errors: string[] = [];
  const note = (event: GenerationEvent) => {
    if (event.type === "error") errors.push(event.error.code);
  };
  scene.isFull = true;
  scene.instance.submit(settings, note, adapter);
  await settle();
  scene.isFull = false;
  scene.instance.submit(settings, note, adapter);
  await settle();
  const error = { code: "checkpoint_unsupported", message: "tensor 'x' has incorrect shape" } as const;
  scene.observer?.onMessage({ type: "adapter_refused", adapter: 1, error });
  await settle();
  expect(errors).toEqual(["insufficient_memory", "checkpoint_unsupported"]);
  expect(scene.instance.state).toBe("ready");
  expect(scene.booked).toEqual([`adapters ${adapterBytes}`, "adapters 0"]);
});

test("an engine that ends while an adapter comes ends the request once", async () => {
  await scene.makeReady();
  const events: GenerationEvent[] = [];
  scene.instance.submit(settings, (event) => events.push(event), adapter);
  await settle();
  scene.end("signal SIGABRT", ["GGML_ASSERT failed"]);
  await settle();
  expect(events).toMatchObject([{ type: "error", error: { code: "engine_failed" } }]);
  expect(scene.memoryReleases).toBe(1);
});

test("a parked instance holds no adapters, and memory for them is booked anew", async () => {
  await scene.makeReady();
  const request = scene.instance.submit(settings, () => {}, adapter);
  await settle();
  scene.observer?.onMessage({ type: "adapter_added", adapter: 1 });
  await settle();
  scene.observer?.onMessage({ type: "error", request, error: { code: "cancelled", message: "x" } });
  const parked = scene.instance.park();
  scene.observer?.onMessage({ type: "parked", weights_kept: true });
  await parked;
  expect(scene.booked).toEqual([`adapters ${adapterBytes}`, "parked"]);
  await scene.instance.resume();
  await settle();
  scene.observer?.onMessage({ type: "ready", model_build_ms: 7, weights_wait_ms: 0 });
  await settle();
  scene.instance.submit(settings, () => {}, adapter);
  await settle();
  expect(scene.sent.at(-1)).toMatchObject({ op: "add_adapter", adapter: 2 });
});

test("an engine's memory limit grows with what its adapters take beyond what was booked for them", async () => {
  scene = new InstanceScene(undefined, 1_000_000);
  await scene.makeReady();
  scene.instance.submit(settings, () => {}, adapter);
  await settle();
  expect(scene.sent.filter(({ op }) => op === "limit")).toEqual([
    { op: "limit", private_bytes: 1_000_000 },
    { op: "limit", private_bytes: 1_000_000 + adapterBytes },
  ]);
});
