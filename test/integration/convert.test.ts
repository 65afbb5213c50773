/** Converting with the real native library: same content, same digest; crashes and hostile headers leave nothing. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { runtimeLoader } from "../../native/bun-ffi-helpers/load.ts";
import { NativeLibrary } from "../../native/bun-ffi-helpers/native.ts";
import { openGguf } from "../../worker/checkpoints/import/gguf-splits.ts";
import { defaultNativePaths } from "../../worker/checkpoints/import/native-paths.ts";
import { asModel, convertGguf, readCheckpoint } from "../../worker/checkpoints/import.ts";
import { type MetadataPair, writeGgufFile } from "../models/generator/gguf-file.ts";
import { sampleModelPath } from "../models/generator/vocabulary.ts";
import { makeModel } from "../models/make-model.ts";
import { floatTensor } from "../support/gguf.ts";

let folder = "";
let store_dir = "";
let stores = 0;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "sllm-convert-"));
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});
beforeEach(() => {
  store_dir = path.join(folder, `store-${stores++}`);
});

const inFolder = (name: string) => path.join(folder, name);
const storeNames = () => readdir(store_dir).catch(() => []);

/** The sample model's tokenizer and metadata with changes, around tensors that do not matter. */
async function writeVariant(name: string, changes: readonly MetadataPair[]): Promise<string> {
  const sample = await openGguf(sampleModelPath);
  await sample.close();
  const changed = new Set(changes.map(([key]) => key));
  const kept = sample.pairs
    .filter((pair) => !changed.has(pair.key))
    .map((pair): MetadataPair => [pair.key, "raw", { type: pair.type, bytes: pair.raw }]);
  const tensors = sample.tensors.map(({ name: tensor, shape, type, bytes }) => ({
    name: tensor,
    shape,
    type: type.id,
    bytes,
    data: () => [new Uint8Array(bytes)],
  }));
  writeGgufFile(inFolder(name), [...kept, ...changes], tensors);
  return inFolder(name);
}

describe("converting the sample model", () => {
  test("gives a checkpoint that opens, and the second time the same one without writing", async () => {
    const first = await convertGguf({ source: sampleModelPath, store_dir });
    const second = await convertGguf({ source: sampleModelPath, store_dir });
    expect(first.already_present).toBe(false);
    expect(second).toMatchObject({ digest: first.digest, already_present: true });
    const stored = asModel(await readCheckpoint(first.directory));
    expect(stored.manifest.model).toMatchObject({
      architecture: "llama",
      name: "Tiny Shakespeare 3M",
      parameters: 3_279_104,
      layers: 4,
      embedding: 256,
      vocabulary_tokens: 1024,
      context_tokens: 256,
      quantisation: "F16",
      kv_bytes_per_token: 4 * 2 * (32 + 32) * 2,
    });
    expect(await storeNames()).toEqual([first.digest]);
  });

  test("lays the tensors out in the engine's order with the layers one after the other", async () => {
    const { manifest } = await convertGguf({ source: sampleModelPath, store_dir });
    expect(manifest.tensors).toHaveLength(38);
    const layers = manifest.tensors.map((tensor) => tensor.layer).filter((layer) => layer >= 0 && layer < 4);
    expect(layers).toEqual(layers.toSorted((a, b) => a - b));
    expect(manifest.tensors[0]).toMatchObject({ name: "token_embd.weight", layer: -1, offset: 0 });
  });

  test("writes the fast digests that the native library computes, equal to another XXH3", async () => {
    const { directory, manifest } = await convertGguf({ source: sampleModelPath, store_dir });
    const weights = await readFile(path.join(directory, "weights.bin"));
    const native = NativeLibrary.open(defaultNativePaths().library, await runtimeLoader());
    const [chunk] = manifest.weights.chunks;
    expect(manifest.weights.chunks).toHaveLength(1);
    expect(BigInt(`0x${chunk?.xxh3}`)).toBe(native.digestXxh3(weights));
    expect(BigInt(`0x${chunk?.xxh3}`)).toBe(BigInt(Bun.hash.xxHash3(weights)));
  });
});

test("a model in one file and in three parts gives one digest, from whatever part", async () => {
  const wish = { architecture: "qwen2", type: "q8_0", size_bytes: 40_000_000, seed: 7 } as const;
  const single = await makeModel({ ...wish, out: inFolder("single.gguf") });
  const parts = await makeModel({ ...wish, out: inFolder("parts.gguf"), split: 3 });
  const [source = ""] = single.paths;
  const { digest, manifest } = await convertGguf({ source, store_dir });
  expect(manifest.weights.chunks.length).toBeGreaterThan(1);
  for (const part of parts.paths) {
    expect(await convertGguf({ source: part, store_dir })).toMatchObject({ digest, already_present: true });
  }
});

describe("a conversion that is killed", () => {
  test("leaves no visible checkpoint, and the next one cleans up behind it", async () => {
    const { paths } = await makeModel({
      architecture: "llama",
      type: "f16",
      size_bytes: 80_000_000,
      out: inFolder("killed.gguf"),
    });
    const [source = ""] = paths;
    const program = inFolder("killed.ts");
    const entry = path.resolve(import.meta.dir, "../../worker/checkpoints/import.ts");
    const options = JSON.stringify({ source, store_dir });
    await writeFile(
      program,
      `import { convertGguf } from ${JSON.stringify(entry)};
       await convertGguf({ ...${options}, on_progress: () => process.kill(process.pid, "SIGKILL") });`,
    );
    const child = Bun.spawn([process.execPath, program], { stdout: "ignore", stderr: "ignore" });
    await child.exited;
    expect(child.signalCode).toBe("SIGKILL");
    const left = (await storeNames()).toSorted();
    expect(left).toEqual([expect.stringMatching(/^\.incoming-/), expect.stringMatching(/^\.reserved-/)]);

    const { digest } = await convertGguf({ source, store_dir });
    expect(await storeNames()).toEqual([digest]);
  });
});

describe("a header that the engine library does not take", () => {
  test("and dies of is refused with its last words, and nothing is left behind", async () => {
    // Experts in use without any experts: an assertion inside the library.
    const source = await writeVariant("abort.gguf", [["llama.expert_used_count", "uint32", 2]]);
    await expect(convertGguf({ source, store_dir })).rejects.toMatchObject({
      code: "checkpoint_unsupported",
      message: expect.stringMatching(
        /died \(SIG[A-Z]+\).* Its last words: llama-model.cpp:\d+: GGML_ASSERT.* failed$/,
      ),
    });
    expect(await storeNames()).toEqual([]);
  });

  test.each<[string, MetadataPair, RegExp]>([
    ["an unknown architecture", ["general.architecture", "string", "nonsense"], /nonsense/],
    ["a width that the tensors do not have", ["llama.feed_forward_length", "uint32", 512], /blk\.0\.ffn_/],
    ["more layers than there are", ["llama.block_count", "uint32", 5], /blk\.4/],
    ["an unknown tokenizer", ["tokenizer.ggml.model", "string", "nonsense"], /nonsense/],
  ])("because of %s is refused with its reason", async (name, change, reason) => {
    const extra: MetadataPair[] =
      change[2] === "nonsense" && change[0] === "general.architecture"
        ? [
            ["nonsense.block_count", "uint32", 4],
            ["nonsense.embedding_length", "uint32", 256],
            ["nonsense.context_length", "uint32", 256],
          ]
        : [];
    const source = await writeVariant(`${name.replaceAll(" ", "-")}.gguf`, [change, ...extra]);
    await expect(convertGguf({ source, store_dir })).rejects.toMatchObject({
      code: "checkpoint_unsupported",
      message: expect.stringMatching(reason),
    });
    expect(await storeNames()).toEqual([]);
  });

  test("because a tensor is missing is refused", async () => {
    const pairs: MetadataPair[] = [
      ["general.architecture", "string", "llama"],
      ["llama.block_count", "uint32", 1],
      ["llama.embedding_length", "uint32", 64],
      ["llama.context_length", "uint32", 64],
    ];
    writeGgufFile(inFolder("missing.gguf"), pairs, [floatTensor("token_embd.weight", [64, 3])]);
    const failure = convertGguf({ source: inFolder("missing.gguf"), store_dir });
    await expect(failure).rejects.toMatchObject({ code: "checkpoint_unsupported" });
    expect(await storeNames()).toEqual([]);
  });
});

test("without the engine libraries the refusal is about this machine, not about the model", async () => {
  const native = { ...defaultNativePaths(), engine_libraries: folder };
  const failure = convertGguf({ source: sampleModelPath, store_dir, native });
  await expect(failure).rejects.toMatchObject({ code: "native_unavailable" });
  const without = { ...defaultNativePaths(), library: inFolder("missing.so") };
  const other = convertGguf({ source: sampleModelPath, store_dir, native: without });
  await expect(other).rejects.toMatchObject({ code: "native_unavailable" });
  expect(await storeNames()).toEqual([]);
});

test("a conversion can be cancelled while the engine library is asked", async () => {
  const abort = new AbortController();
  const failure = convertGguf({ source: sampleModelPath, store_dir, signal: abort.signal });
  setTimeout(() => abort.abort(), 20);
  await expect(failure).rejects.toMatchObject({ code: "cancelled" });
  expect(await storeNames()).toEqual([]);
});
