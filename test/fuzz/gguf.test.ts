/**
 * Damaged and hostile GGUF files: the importer succeeds or refuses with a checkpoint code, within bounded memory,
 * and the store is as it was. `SLLM_TEST_SEED` repeats a run.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import fc from "fast-check";
import { SllmError } from "../../schema/error.ts";
import { convertAdapterWith, convertWith } from "../../worker/checkpoints/import/convert.ts";
import { readGguf } from "../../worker/checkpoints/import/gguf-reader.ts";
import { openGguf } from "../../worker/checkpoints/import/gguf-splits.ts";
import { readCheckpoint } from "../../worker/checkpoints/import/verify.ts";
import { convertGguf } from "../../worker/checkpoints/import.ts";
import { adapterParts } from "../models/generator/adapter.ts";
import { writeSplitGguf } from "../models/generator/gguf-file.ts";
import { sampleModelPath } from "../models/generator/vocabulary.ts";
import { encodeFile, leastMetadata, leastTensors, MemorySource } from "../support/gguf.ts";
import { checkAsyncProperty } from "../support/property.ts";
import { fieldOffsets, type Mutation, mutate, mutation } from "./gguf-mutations.ts";

let folder = "";
let sample = new Uint8Array();
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "sllm-fuzz-"));
  sample = new Uint8Array(await readFile(sampleModelPath));
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

const least = new Uint8Array(encodeFile());
const refusals = ["checkpoint_invalid", "checkpoint_unsupported"];
const mutations = (file: Uint8Array, headerOnly = file.length, most = 3) => {
  const fields = fieldOffsets(file);
  return fc.array(mutation(headerOnly, fields), { minLength: 1, maxLength: most });
};

/** Null for success, else the refusal; anything that is no refusal fails the test. */
async function refusalOf(
  work: Promise<unknown>,
  allowed: readonly string[] = refusals,
): Promise<string | null> {
  try {
    await work;
    return null;
  } catch (error) {
    if (error instanceof SllmError && allowed.includes(error.code)) return error.message;
    throw error;
  }
}

test("the offsets of fields that are damaged lie where the reader sees fields", async () => {
  const fields = new Set(fieldOffsets(least));
  const header = await readGguf(new MemorySource(least));
  expect(fields.size).toBeGreaterThan(40);
  expect(Math.max(...fields)).toBe(header.header_bytes - 8);
});

test("a damaged header is read or refused, with no more read than the file holds", async () => {
  let refused = 0;
  await checkAsyncProperty(
    mutations(least),
    async (damage) => {
      const content = mutate(least, damage);
      const source = new MemorySource(content);
      if ((await refusalOf(readGguf(source))) !== null) refused++;
      expect(source.bytes_read).toBeLessThanOrEqual(content.length);
    },
    3000,
  );
  expect(refused).toBeGreaterThan(300);
});

test("the sample's header with its vocabulary cut at every field is refused", async () => {
  for (const at of fieldOffsets(sample)) {
    const source = new MemorySource(sample.subarray(0, at));
    expect({ at, refused: await refusalOf(readGguf(source)) }).not.toEqual({ at, refused: null });
  }
});

test("whatever is read can be placed without overlap inside the file", async () => {
  await checkAsyncProperty(
    mutations(least, least.length, 1),
    async (damage) => {
      const content = mutate(least, damage);
      let header: Awaited<ReturnType<typeof readGguf>>;
      try {
        header = await readGguf(new MemorySource(content));
      } catch (error) {
        if (error instanceof SllmError) return;
        throw error;
      }
      const ordered = header.tensors.toSorted((a, b) => a.file_offset - b.file_offset);
      let end = header.header_bytes;
      for (const tensor of ordered) {
        expect(tensor.file_offset).toBeGreaterThanOrEqual(end);
        end = tensor.file_offset + tensor.bytes;
      }
      expect(end).toBeLessThanOrEqual(Math.max(content.length, header.header_bytes));
    },
    2000,
  );
});

test("a damaged file is converted into a whole checkpoint or leaves nothing behind", async () => {
  const source = path.join(folder, "damaged.gguf");
  const store_dir = path.join(folder, "plain-store");
  const xxh3 = (bytes: Uint8Array) => BigInt(Bun.hash.xxHash3(bytes));
  const plan = async (header: string) => {
    const model = await openGguf(header);
    await model.close();
    return model.tensors.map((tensor) => tensor.name);
  };
  await checkAsyncProperty(
    mutations(least),
    async (damage) => {
      await writeFile(source, mutate(least, damage));
      const work = convertWith({ plan, xxh3 }, { source, store_dir });
      const refused = await refusalOf(work);
      if (refused === null) await readCheckpoint((await work).directory);
      for (const name of await readdir(store_dir).catch(() => [])) {
        expect(name).toMatch(/^[0-9a-f]{64}$/);
        await rm(path.join(store_dir, name), { recursive: true });
      }
    },
    250,
  );
});

test("a damaged adapter is refused, or has in every place what the engine library insists on", async () => {
  const target = { name: "blk.0.attn_q.weight", columns: 8, rows: 6 };
  const { pairs, tensors } = adapterParts({ seed: 1, rank: 2, targets: [target] });
  const adapter = new Uint8Array(encodeFile(pairs, tensors));
  const source = path.join(folder, "adapter.gguf");
  const store_dir = path.join(folder, "adapter-store");
  const xxh3 = (bytes: Uint8Array) => BigInt(Bun.hash.xxHash3(bytes));
  const plan = () => Promise.reject(new Error("an adapter is not laid out"));
  let refused = 0;
  await checkAsyncProperty(
    mutations(adapter),
    async (damage) => {
      await writeFile(source, mutate(adapter, damage));
      const work = convertAdapterWith({ plan, xxh3 }, { source, store_dir });
      if ((await refusalOf(work)) !== null) {
        refused++;
        return;
      }
      const { directory, manifest } = await work;
      const header = await readGguf(
        new MemorySource(new Uint8Array(await readFile(path.join(directory, "header.gguf")))),
      );
      const typeOf = (key: string) => header.pairs.find((pair) => pair.key === key)?.type;
      const [text, float32] = [8, 6];
      for (const key of ["general.type", "general.architecture", "adapter.type"])
        expect(typeOf(key)).toBe(text);
      expect(typeOf("adapter.lora.alpha")).toBe(float32);
      for (const { name, shape } of manifest.tensors) {
        if (!name.endsWith(".lora_a")) continue;
        const b = manifest.tensors.find((one) => one.name === name.replace(/a$/, "b"));
        const inner = name.startsWith("token_embd.") ? shape[0] : (shape[1] ?? 1);
        expect(b?.shape[0]).toBe(inner ?? 1);
      }
      await rm(directory, { recursive: true });
    },
    300,
  );
  expect(refused).toBeGreaterThan(30);
});

test("damaged parts of a split model are joined or refused", async () => {
  const paths = writeSplitGguf(path.join(folder, "parts.gguf"), leastMetadata, leastTensors, 3);
  const parts = await Promise.all(paths.map(async (p) => new Uint8Array(await readFile(p))));
  const part = fc.integer({ min: 0, max: 2 }).chain((index) => {
    const file = parts[index] ?? new Uint8Array(1);
    return fc.record({
      index: fc.constant(index),
      damage: mutations(file),
      opened: fc.integer({ min: 0, max: 2 }),
    });
  });
  const damagePart = async (index: number, damage: readonly Mutation[]) => {
    for (const [i, p] of paths.entries()) {
      const content = parts[i] ?? new Uint8Array();
      await writeFile(p, i === index ? mutate(content, damage) : content);
    }
  };
  await checkAsyncProperty(
    part,
    async ({ index, damage, opened }) => {
      await damagePart(index, damage);
      const work = openGguf(paths[opened] ?? "").then((model) => model.close());
      await refusalOf(work);
    },
    300,
  );
});

test("the real library converts or refuses damaged headers and this process lives on", async () => {
  const source = path.join(folder, "sample.gguf");
  const store_dir = path.join(folder, "real-store");
  const header = (await readGguf(new MemorySource(sample))).header_bytes;
  await checkAsyncProperty(
    mutations(sample, header, 2),
    async (damage) => {
      await writeFile(source, mutate(sample, damage));
      await refusalOf(convertGguf({ source, store_dir }), [...refusals, "insufficient_memory"]);
      for (const name of await readdir(store_dir).catch(() => [])) {
        expect(name).toMatch(/^[0-9a-f]{64}$/);
      }
    },
    100,
  );
}, 180_000);
