/** The worker with discrete devices, whole: Vulkan on llvmpipe where there is no graphics card. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { Manifest } from "../../schema/checkpoint/manifest.ts";
import { convertGguf } from "../../worker/checkpoints/import.ts";
import { makeModel } from "../models/make-model.ts";
import { eventually } from "../support/eventually.ts";
import { isAlive, repositoryRoot } from "../support/processes.ts";
import { vulkanMissing, vulkanVariables } from "../support/vulkan.ts";
import { generatedText, WorkerHost } from "../support/worker-host.ts";

const sampleModel = path.join(repositoryRoot, "test/models/tiny-shakespeare-3m-f16.gguf");
/** Not of seven tokens: the first matrix product of so many columns takes llvmpipe half a minute to compile. */
const prompts = [
  "ROMEO:\nWhat light",
  "First Citizen:\nBefore we",
  "KING RICHARD:\nNow is the winter of our",
];
if (vulkanMissing !== null) console.warn(`worker-vulkan: skipped, ${vulkanMissing}`);

describe.skipIf(vulkanMissing !== null)("a worker on Vulkan", () => {
  let host: WorkerHost;
  let digest: string;
  let manifest: Manifest;
  let directory: string;
  beforeAll(async () => {
    host = await WorkerHost.start({ variables: { ...vulkanVariables } });
    ({ digest, manifest, directory } = await convertGguf({ source: sampleModel, store_dir: host.store }));
  }, 60_000);
  afterAll(() => host?.close(), 60_000);

  const unload = (instance_id: string) => host.client.unload(host.address, instance_id, { if_idle: false });

  async function answers(on: WorkerHost, checkpoint: string, device_id: string): Promise<string[]> {
    const instance_id = await on.loadReady(checkpoint, { device_id });
    const texts: string[] = [];
    for (const text of prompts) {
      const prompt = { kind: "text" as const, text };
      texts.push(generatedText(await on.generate(instance_id, { prompt, max_tokens: 8 })));
    }
    await on.client.unload(on.address, instance_id, { if_idle: true });
    return texts;
  }

  test("reports its devices with kind and memory, and computes on no other", async () => {
    const { devices } = await host.status();
    expect(devices.map(({ device_id, kind }) => [device_id, kind])).toEqual([
      ["vulkan0", "vulkan"],
      ["vulkan1", "vulkan"],
    ]);
    for (const { memory_bytes } of devices) expect(memory_bytes).toBeGreaterThan(2 ** 28);
    await expect(host.load(digest, { device_id: "cpu" })).rejects.toMatchObject({ code: "not_found" });
  });

  test("answers greedily as a worker on the processors does, on one device and on two", async () => {
    const processors = await WorkerHost.start({ variables: { SLLM_WORKER_DEVICE: "cpu" } });
    try {
      const converted = await convertGguf({ source: sampleModel, store_dir: processors.store });
      const expected = await answers(processors, converted.digest, "cpu");
      expect(expected.every((text) => text.length > 4)).toBe(true);
      expect(await answers(host, digest, "vulkan0")).toEqual(expected);
      expect(await answers(host, digest, "vulkan0+vulkan1")).toEqual(expected);
    } finally {
      await processors.close();
    }
  }, 60_000);

  test("uploads all weights, and keeps them in host memory for the next start", async () => {
    const first = await host.load(digest, { device_id: "vulkan0" });
    const second = await host.load(digest, { device_id: "vulkan1" });
    for (const { last } of [first, second]) {
      if (last.type !== "ready") throw new Error(`the load ended with ${JSON.stringify(last)}`);
      // Embeddings stay on the processors' side, and serve as output once more on the device.
      expect(last.timings.upload_bytes).toBeGreaterThan(manifest.weights.bytes / 2);
      expect(last.timings.upload_ms).toBeGreaterThan(0);
    }
    expect(second.last).toMatchObject({ timings: { disk_read_bytes: 0 } });
    await Promise.all([first, second].map(({ instance_id }) => unload(instance_id)));
  }, 30_000);

  test("a load that is cancelled leaves no process and no booked memory", async () => {
    // Whatever the device has, twice this instance is more: it fits again only when its memory was given back.
    const [device] = (await host.status()).devices;
    const perToken = manifest.model.kv_bytes_per_token;
    const context_tokens = Math.min(1_000_000, Math.floor(((device?.memory_bytes ?? 0) * 0.6) / perToken));
    for (let round = 0; round < 2; round++) {
      const request = host.loadRequest(digest, { device_id: "vulkan0", context_tokens, slots: 1 });
      const events = host.client.load(host.address, request, new AbortController().signal);
      const begun = events[Symbol.asyncIterator]().next();
      const pid = await eventually("an engine process", async () => {
        return (await host.instance(request.instance_id))?.pid;
      });
      await unload(request.instance_id);
      await begun;
      expect(isAlive(pid)).toBe(false);
    }
  }, 30_000);

  test("a damaged chunk fails the load with file and offset, and the others are served", async () => {
    const good = await host.loadReady(digest, { device_id: "vulkan0" });
    const own = await WorkerHost.start({ variables: { ...vulkanVariables } });
    try {
      const converted = await convertGguf({ source: sampleModel, store_dir: own.store });
      const file = openSync(path.join(converted.directory, "weights.bin"), "r+");
      writeSync(file, new Uint8Array([1, 2, 3, 4]), 0, 4, 4096);
      closeSync(file);
      const { last } = await own.load(converted.digest, { device_id: "vulkan0" });
      expect(last).toMatchObject({ type: "failed", error: { code: "checkpoint_invalid" } });
      expect(JSON.stringify(last)).toContain("weights.bin");
      expect(directory).not.toBe(converted.directory);
    } finally {
      await own.close();
    }
    const prompt = { kind: "text" as const, text: prompts[0] ?? "" };
    expect(generatedText(await host.generate(good, { prompt, max_tokens: 8 }))).not.toBe("");
    await unload(good);
  }, 60_000);
});

describe.skipIf(vulkanMissing !== null)("weights larger than host memory", () => {
  const mebibyte = 2 ** 20;
  let folder: string;
  let host: WorkerHost;
  beforeAll(async () => {
    folder = mkdtempSync(path.join(tmpdir(), "sllm-vulkan-"));
    host = await WorkerHost.start({
      variables: { ...vulkanVariables, SLLM_WORKER_ARENA_BYTES: String(48 * mebibyte) },
    });
  }, 60_000);
  afterAll(async () => {
    await host?.close();
    rmSync(folder, { recursive: true, force: true });
  }, 60_000);

  test("stream to the device, are never reported as held, and answer as those that fit", async () => {
    const gguf = path.join(folder, "large.gguf");
    await makeModel({ architecture: "llama", size_bytes: 100e6, type: "f16", out: gguf, seed: 3 });
    const { digest, manifest } = await convertGguf({ source: gguf, store_dir: host.store });
    expect(manifest.weights.bytes).toBeGreaterThan(90 * mebibyte);
    const prompt = { kind: "text" as const, text: prompts[0] ?? "" };
    const streamed = await host.load(digest, { device_id: "vulkan0+vulkan1" });
    expect(streamed.last).toMatchObject({
      type: "ready",
      timings: { disk_read_bytes: manifest.weights.bytes },
    });
    const text = generatedText(await host.generate(streamed.instance_id, { prompt, max_tokens: 4 }));
    const { placements } = await host.status();
    expect(placements.filter(({ tier }) => tier === "host")).toEqual([]);
    const again = await host.load(digest, { device_id: "vulkan0" });
    expect(again.last).toMatchObject({ type: "ready", timings: { disk_read_bytes: manifest.weights.bytes } });
    const roomy = await WorkerHost.start({ variables: { ...vulkanVariables } });
    try {
      const fits = await convertGguf({ source: gguf, store_dir: roomy.store });
      const instance_id = await roomy.loadReady(fits.digest, { device_id: "vulkan0+vulkan1" });
      expect(generatedText(await roomy.generate(instance_id, { prompt, max_tokens: 4 }))).toBe(text);
    } finally {
      await roomy.close();
    }
  }, 120_000);
});

test("a worker told to use a device that it cannot use says so and does not start", async () => {
  const variables = { SLLM_WORKER_DEVICE: "cuda", SLLM_ENGINE_LIBRARIES: "/nonexistent" };
  await expect(WorkerHost.start({ variables })).rejects.toThrow("nonexistent");
});
