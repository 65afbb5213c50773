/** LoRA adapters on a worker with the sample model: brought on first use, bounded, evicted, kept over a resume. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { GenerateRequest, GenerationEvent } from "../../schema/cluster/generate.ts";
import { convertAdapter, convertGguf } from "../../worker/checkpoints/import.ts";
import { type AdapterWish, writeAdapter } from "../models/generator/adapter.ts";
import { sampleModelPath } from "../models/generator/vocabulary.ts";
import { eventually } from "../support/eventually.ts";
import { generatedText, WorkerHost } from "../support/worker-host.ts";

setDefaultTimeout(60_000);

const folder = mkdtempSync(path.join(tmpdir(), "sllm-adapters-"));
let host: WorkerHost;
let digest: string;
const adapters: string[] = [];

async function convert(wish: AdapterWish): Promise<string> {
  const source = writeAdapter(path.join(folder, `${wish.seed}.gguf`), wish);
  return (await convertAdapter({ source, store_dir: host.store })).digest;
}

beforeAll(async () => {
  host = await WorkerHost.start({ variables: { SLLM_WORKER_ADAPTERS: "2" } });
  ({ digest } = await convertGguf({ source: sampleModelPath, store_dir: host.store }));
  for (const seed of [1, 2, 3]) adapters.push(await convert({ seed }));
}, 60_000);
afterAll(async () => {
  await host?.close();
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

const answer = async (instance_id: string, change: Partial<GenerateRequest> = {}) =>
  generatedText(await host.generate(instance_id, change));
const withAdapter = (index: number) => ({ adapter: adapters[index] ?? "" });
const started = (events: readonly GenerationEvent[]) => {
  const first = events[0];
  if (first?.type !== "started") throw new Error(`it began with ${JSON.stringify(first)}`);
  return first;
};

test("answers with more adapters than an instance holds are those that each has alone", async () => {
  const instance_id = await host.loadReady(digest);
  const alone: string[] = [];
  for (const i of [0, 1, 2]) alone.push(await answer(instance_id, withAdapter(i)));
  const base = await answer(instance_id);
  expect(new Set([...alone, base]).size).toBe(4);
  // All at once in two slots and two places: they take turns, and each comes back after it was evicted.
  for (let round = 0; round < 2; round++) {
    const together = await Promise.all([2, 0, 1, 2, 1, 0].map((i) => answer(instance_id, withAdapter(i))));
    expect(together).toEqual([2, 0, 1, 2, 1, 0].map((i) => alone[i] ?? ""));
    expect(await answer(instance_id)).toBe(base);
  }
  await host.client.unload(host.address, instance_id, { if_idle: true });
});

test("a beginning in the cache is found by the same adapter only", async () => {
  const instance_id = await host.loadReady(digest, { slots: 1 });
  const prompt = { kind: "text", text: "Now is the winter of our discontent made glorious summer" } as const;
  const cached = async (change: Partial<GenerateRequest>) =>
    started(await host.generate(instance_id, { prompt, max_tokens: 1, ...change })).cached_tokens ?? 0;
  expect(await cached({})).toBe(0);
  expect(await cached({})).toBeGreaterThan(5);
  expect(await cached(withAdapter(0))).toBe(0);
  expect(await cached(withAdapter(0))).toBeGreaterThan(5);
  expect(await cached(withAdapter(1))).toBe(0);
  expect(await cached({})).toBe(0);
  await host.client.unload(host.address, instance_id, { if_idle: true });
});

test("an answer goes on from its tokens with the adapter that began it, on another instance too", async () => {
  const [here, there] = [await host.loadReady(digest), await host.loadReady(digest)];
  const whole = await host.generate(here, { ...withAdapter(0), tell_prompt: true });
  const tokens = whole.flatMap((event) => (event.type === "tokens" ? event.tokens : []));
  const prompt = started(whole).prompt ?? [];
  const resume = { prompt, output: tokens.slice(0, 8).map(({ token }) => token) };
  const rest = await host.generate(there, { ...withAdapter(0), resume });
  const next = rest.flatMap((event) => (event.type === "tokens" ? event.tokens : []));
  expect(next.map(({ token }) => token)).toEqual(tokens.slice(8).map(({ token }) => token));
  for (const id of [here, there]) await host.client.unload(host.address, id, { if_idle: true });
});

test("after a park the first request that names an adapter brings it again", async () => {
  const instance_id = await host.loadReady(digest);
  const before = await answer(instance_id, withAdapter(1));
  await host.client.park(host.address, instance_id);
  const request = { ...host.loadRequest(digest), instance_id };
  for await (const event of host.client.load(host.address, request, new AbortController().signal)) {
    expect(event.type).not.toBe("failed");
  }
  expect(await answer(instance_id, withAdapter(1))).toBe(before);
  await host.client.unload(host.address, instance_id, { if_idle: true });
});

test("what cannot be used as an adapter ends that request alone, with its name", async () => {
  const instance_id = await host.loadReady(digest);
  const errorOf = async (adapter: string) => {
    const last = (await host.generate(instance_id, { adapter })).at(-1);
    return last?.type === "error" ? last.error : null;
  };
  expect(await errorOf("0".repeat(64))).toMatchObject({ code: "checkpoint_unavailable" });
  expect(await errorOf(digest)).toMatchObject({
    code: "checkpoint_unsupported",
    message: expect.stringContaining("no LoRA adapter"),
  });
  const narrow = { name: "blk.0.attn_q.weight", columns: 128, rows: 256 };
  expect(await errorOf(await convert({ seed: 9, targets: [narrow] }))).toMatchObject({
    code: "checkpoint_unsupported",
    message: expect.stringContaining("blk.0.attn_q.weight"),
  });
  expect(await errorOf(adapters[0] ?? "")).toBeNull();
  await host.client.unload(host.address, instance_id, { if_idle: true });
});

test("damaged weights of an adapter are found before an engine reads them", async () => {
  const good = await convert({ seed: 20 });
  const damaged = path.join(host.store, good, "weights.bin");
  const bytes = new Uint8Array(await Bun.file(damaged).arrayBuffer());
  bytes[100] = (bytes[100] ?? 0) ^ 1;
  await Bun.write(damaged, bytes);
  const instance_id = await host.loadReady(digest);
  const last = (await host.generate(instance_id, { adapter: good })).at(-1);
  expect(last).toMatchObject({ type: "error", error: { code: "checkpoint_invalid" } });
  expect(await answer(instance_id, withAdapter(2))).not.toBe("");
  await host.client.unload(host.address, instance_id, { if_idle: true });
});

test("memory of adapters is booked beyond what the instance began with, and refused where there is none", async () => {
  const small = await WorkerHost.start({ variables: { SLLM_WORKER_MEMORY_BYTES: String(480 * 2 ** 20) } });
  try {
    cpSync(path.join(host.store, digest), path.join(small.store, digest), { recursive: true });
    // 96 MiB of factors, with all but some of the memory in use by instances.
    const wish = { seed: 30, rank: 24_000 };
    const source = writeAdapter(path.join(folder, "large.gguf"), wish);
    const large = (await convertAdapter({ source, store_dir: small.store })).digest;
    const first = await small.loadReady(digest);
    const others = [await small.loadReady(digest), await small.loadReady(digest)];
    const errorOf = async () => {
      const last = (await small.generate(first, { adapter: large, max_tokens: 1 })).at(-1);
      return last?.type === "error" ? last.error.code : null;
    };
    expect(await errorOf()).toBe("insufficient_memory");
    expect(generatedText(await small.generate(first))).not.toBe("");
    for (const id of others) await small.client.unload(small.address, id, { if_idle: true });
    await eventually("there is room", async () => (await errorOf()) === null);
  } finally {
    await small.close();
  }
}, 120_000);
