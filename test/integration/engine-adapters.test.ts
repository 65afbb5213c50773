/** LoRA adapters over an engine's private channel, with the sample model, under Bun and under Deno. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { convertAdapter, convertGguf } from "../../worker/checkpoints/import.ts";
import { type AdapterWish, writeAdapter } from "../models/generator/adapter.ts";
import { sampleModelPath } from "../models/generator/vocabulary.ts";
import { DirectEngine } from "../support/direct-engine.ts";
import { eventually } from "../support/eventually.ts";
import { HostCopies } from "../support/host-copies.ts";
import { openNativeLibrary } from "../support/native.ts";

const folder = mkdtempSync(path.join(tmpdir(), "sllm-adapters-"));
const store_dir = path.join(folder, "store");
let copies: HostCopies;
let model: string;
const engines: DirectEngine[] = [];

beforeAll(async () => {
  copies = new HostCopies(await openNativeLibrary());
  model = (await convertGguf({ source: sampleModelPath, store_dir })).directory;
}, 60_000);
afterEach(async () => {
  const ended = engines.splice(0).map(({ client }) => {
    client.kill();
    return client.exited;
  });
  await Promise.all(ended);
});
afterAll(() => {
  copies?.[Symbol.dispose]();
  rmSync(folder, { recursive: true, force: true });
});

async function convert(name: string, wish: AdapterWish): Promise<string> {
  const source = writeAdapter(path.join(folder, `${name}.gguf`), wish);
  return (await convertAdapter({ source, store_dir })).directory;
}

async function start(runtime: "bun" | "deno" = "bun"): Promise<DirectEngine> {
  const engine = new DirectEngine(copies, { runtime });
  engines.push(engine);
  await engine.load(model);
  return engine;
}

describe.each(["bun", "deno"] as const)("under %s", (runtime) => {
  test("adapters come while others answer, change the answers of those that name them, and go", async () => {
    const engine = await start(runtime);
    const [first, second] = [await convert("one", { seed: 1 }), await convert("two", { seed: 2 })];
    const base = await engine.answer();
    engine.client.generate(900, { max_tokens: 200 });
    await engine.client.waitFor("tokens", 900);
    expect(await engine.add(1, first)).toMatchObject({ type: "adapter_added", adapter: 1 });
    expect(await engine.add(2, second)).toMatchObject({ type: "adapter_added", adapter: 2 });
    expect(await engine.client.waitFor("done", 900)).toMatchObject({ completion_tokens: 200 });
    const one = await engine.answer({ adapter: 1 });
    const two = await engine.answer({ adapter: 2 });
    expect(new Set([base, one, two]).size).toBe(3);
    // Side by side, each as alone, and the model itself is as it was.
    expect(
      await Promise.all([1, 2, undefined].map((adapter) => engine.answer(adapter ? { adapter } : {}))),
    ).toEqual([one, two, base]);
    engine.client.send({ op: "remove_adapter", adapter: 1 });
    engine.client.generate(901, { adapter: 1 });
    expect((await engine.client.waitFor("error", 901)).error.message).toContain("no adapter 1");
    expect(await engine.answer({ adapter: 2 })).toBe(two);
    engine.client.endInput();
    expect(await engine.client.exited).toBe(0);
  }, 60_000);
});

test("an adapter of another shape or architecture is refused by name, and the engine goes on", async () => {
  const engine = await start();
  const narrow = { name: "blk.0.attn_q.weight", columns: 128, rows: 256 };
  const shape = await engine.add(1, await convert("narrow", { seed: 3, targets: [narrow] }));
  expect(shape).toMatchObject({
    type: "adapter_refused",
    error: { code: "checkpoint_unsupported", message: expect.stringContaining("blk.0.attn_q.weight") },
  });
  const missing = { name: "blk.99.attn_q.weight", columns: 256, rows: 256 };
  const unknown = await engine.add(2, await convert("missing", { seed: 4, targets: [missing] }));
  expect(unknown).toMatchObject({ error: { message: expect.stringContaining("blk.99.attn_q.weight") } });
  const foreign = await engine.add(3, await convert("foreign", { seed: 5, architecture: "qwen2" }));
  expect(foreign).toMatchObject({ error: { message: expect.stringContaining("arch") } });
  expect(await engine.answer()).not.toBe("");
}, 60_000);

test("a parked engine has no adapters any more, and takes them again", async () => {
  const engine = await start();
  const one = await convert("one", { seed: 1 });
  await engine.add(1, one);
  const before = await engine.answer({ adapter: 1 });
  engine.client.send({ op: "park", keep_weights: true });
  await engine.client.waitFor("parked");
  expect(await engine.add(2, one)).toMatchObject({
    type: "adapter_refused",
    error: { code: "model_loading" },
  });
  await engine.attachAgain();
  engine.client.generate(900, { adapter: 1 });
  await engine.client.waitFor("error", 900);
  expect(await engine.add(3, one)).toMatchObject({ type: "adapter_added" });
  expect(await engine.answer({ adapter: 3 })).toBe(before);
}, 60_000);

test("an engine that is told to leave while an adapter comes leaves at once", async () => {
  const engine = await start();
  const files = await engine.filesOf(await convert("one", { seed: 1 }));
  engine.client.send({ op: "add_adapter", adapter: 1, ...files });
  engine.client.send({ op: "exit" });
  await eventually("it has ended", async () => {
    const ended = await Promise.race([engine.client.exited, Promise.resolve(null)]);
    return ended !== null;
  });
}, 60_000);
