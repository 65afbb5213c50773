/** The worker with the sample model: the whole way from a GGUF file to text, and back to no memory. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { closeSync, openSync, writeSync } from "node:fs";
import path from "node:path";
import type { Manifest } from "../../schema/checkpoint/manifest.ts";
import type { GenerationEvent } from "../../schema/cluster/generate.ts";
import { convertGguf } from "../../worker/checkpoints/import.ts";
import { eventually } from "../support/eventually.ts";
import { isAlive, pssBytes, repositoryRoot } from "../support/processes.ts";
import { generatedText, WorkerHost } from "../support/worker-host.ts";

const sampleModel = path.join(repositoryRoot, "test/models/tiny-shakespeare-3m-f16.gguf");
const mebibyte = 1024 * 1024;
const chat = {
  prompt: { kind: "messages" as const, messages: [{ role: "user" as const, content: "Who is there?" }] },
  max_tokens: 16,
};

let host: WorkerHost;
let digest: string;
let manifest: Manifest;
let directory: string;
beforeAll(async () => {
  host = await WorkerHost.start();
  ({ digest, manifest, directory } = await convertGguf({ source: sampleModel, store_dir: host.store }));
}, 60_000);
afterAll(() => host?.close(), 60_000);

const last = (events: readonly GenerationEvent[]) => events.at(-1);

test("a start from disk reads every byte once, the next one from host memory reads none", async () => {
  const first = await host.load(digest);
  expect(first.last).toMatchObject({ type: "ready", timings: { disk_read_bytes: manifest.weights.bytes } });
  await host.client.unload(host.address, first.instance_id, { if_idle: true });
  const second = await host.load(digest);
  expect(second.last).toMatchObject({ type: "ready", timings: { disk_read_bytes: 0, disk_read_ms: 0 } });
  await host.client.unload(host.address, second.instance_id, { if_idle: true });
});

test("a chat is rendered by the model's template and answered with text; greedy answers repeat", async () => {
  const instance_id = await host.loadReady(digest, { deterministic: true });
  const events = await host.generate(instance_id, chat);
  expect(events[0]?.type).toBe("started");
  expect(last(events)).toMatchObject({ type: "done", finish_reason: "length", completion_tokens: 16 });
  expect(generatedText(events)).toMatch(/[a-z]{3}/i);
  expect(generatedText(await host.generate(instance_id, chat))).toBe(generatedText(events));
  await host.client.unload(host.address, instance_id, { if_idle: true });
});

test("a seed decides a sampled answer, whatever else runs beside it", async () => {
  const instance_id = await host.loadReady(digest, { slots: 4, deterministic: true });
  const sampled = (seed: string) => ({
    ...chat,
    sampling: { temperature: 0.9, top_k: 0, top_p: 1, min_p: 0, seed },
  });
  const seeds = ["7", "8", "18446744073709551615", "7"];
  const texts = await Promise.all(
    seeds.map(async (seed) => generatedText(await host.generate(instance_id, sampled(seed)))),
  );
  expect(texts[0]).toBe(texts[3] ?? "");
  expect(new Set(texts).size).toBe(3);
  await host.client.unload(host.address, instance_id, { if_idle: true });
});

test("stop strings end an answer and are not part of it", async () => {
  const instance_id = await host.loadReady(digest, { deterministic: true });
  const whole = generatedText(await host.generate(instance_id, { ...chat, max_tokens: 60 }));
  const stop = whole.slice(10, 14);
  const events = await host.generate(instance_id, { ...chat, max_tokens: 60, stop: [stop] });
  expect(last(events)).toMatchObject({ type: "done", finish_reason: "stop" });
  expect(generatedText(events)).toBe(whole.slice(0, whole.indexOf(stop)));
  await host.client.unload(host.address, instance_id, { if_idle: true });
});

test("a prompt beyond the context is the request's fault and says both numbers", async () => {
  const instance_id = await host.loadReady(digest, { context_tokens: 64 });
  const events = await host.generate(instance_id, { prompt: { kind: "text", text: "word ".repeat(200) } });
  expect(last(events)).toMatchObject({
    type: "error",
    error: { code: "context_length_exceeded", message: expect.stringMatching(/\d+ tokens.*64 tokens/) },
  });
  const fits = await host.generate(instance_id, { ...chat, max_tokens: null });
  expect(last(fits)).toMatchObject({ type: "done", finish_reason: "length" });
  await host.client.unload(host.address, instance_id, { if_idle: true });
});

test("after an unload the engine is gone and the memory is back near what it was", async () => {
  await host.client.unload(host.address, await host.loadReady(digest), { if_idle: true });
  const idle = pssBytes([host.process.pid]);
  const instance_id = await host.loadReady(digest, { slots: 4 });
  await host.generate(instance_id, chat);
  const pid = await host.enginePid(instance_id);
  const running = pssBytes([host.process.pid, pid]);
  expect(running - idle).toBeGreaterThan(20 * mebibyte);
  await host.client.unload(host.address, instance_id, { if_idle: true });
  expect(isAlive(pid)).toBe(false);
  expect(pssBytes([host.process.pid]) - idle).toBeLessThan(16 * mebibyte);
});

test("weights that changed on disk fail the load with file and offset, and the worker stays up", async () => {
  const own = await WorkerHost.start();
  try {
    const copy = await convertGguf({ source: sampleModel, store_dir: own.store });
    overwrite(path.join(copy.directory, "weights.bin"), 1_000_003);
    const { instance_id, last: event } = await own.load(copy.digest);
    expect(event).toMatchObject({
      type: "failed",
      error: { code: "checkpoint_invalid", message: expect.stringMatching(/weights\.bin.*offset \d+/) },
    });
    expect(JSON.stringify(event)).not.toContain(own.folder);
    await eventually("no engine is left", async () => (await own.instance(instance_id))?.pid === null);
    expect((await own.status()).state).toBe("ready");
  } finally {
    await own.close();
  }
}, 60_000);

test("a header that changed on disk is refused before an engine parses it", async () => {
  const own = await WorkerHost.start();
  try {
    const copy = await convertGguf({ source: sampleModel, store_dir: own.store });
    overwrite(path.join(copy.directory, "header.gguf"), 100);
    expect((await own.load(copy.digest)).last).toMatchObject({
      type: "failed",
      error: { code: "checkpoint_invalid", message: expect.stringContaining("header.gguf") },
    });
  } finally {
    await own.close();
  }
}, 60_000);

test("missing engine libraries fail the load by name", async () => {
  const own = await WorkerHost.start({ variables: { SLLM_ENGINE_LIBRARIES: "/nowhere/libraries" } });
  try {
    await convertGguf({ source: sampleModel, store_dir: own.store });
    expect((await own.load(digest)).last).toMatchObject({
      type: "failed",
      error: { code: "native_unavailable", message: expect.stringContaining("/nowhere/libraries") },
    });
  } finally {
    await own.close();
  }
}, 60_000);

function overwrite(file: string, offset: number): void {
  const descriptor = openSync(file, "r+");
  writeSync(descriptor, new Uint8Array([0xff, 0x00, 0xff]), 0, 3, offset);
  closeSync(descriptor);
}

test("the checkpoint that others use was not touched by any of this", async () => {
  expect(directory).toBe(path.join(host.store, digest));
  await host.client.unload(host.address, await host.loadReady(digest), { if_idle: true });
});
