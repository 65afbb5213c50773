import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  copyFile,
  mkdtemp,
  open,
  readdir,
  readFile,
  rm,
  stat,
  statfs,
  truncate,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { manifest as manifestSchema, origin as originSchema } from "../../../schema/checkpoint/manifest.ts";
import { writeGgufFile, writeSplitGguf } from "../../../test/models/generator/gguf-file.ts";
import { floatTensor, leastMetadata, leastTensors } from "../../../test/support/gguf.ts";
import type { ConvertOptions, ConvertTools } from "./conversion.ts";
import { convertWith } from "./convert.ts";
import { openGguf } from "./gguf-splits.ts";

let folder = "";
let store = "";
let source = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "sllm-convert-"));
  store = join(folder, "store");
  source = join(folder, "m.gguf");
  writeGgufFile(source, leastMetadata, leastTensors);
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

/** The order of the engine for the least model: another than the file's. */
const order = ["token_embd.weight", "output_norm.weight", "blk.0.attn_norm.weight"];
const tools: ConvertTools = {
  plan: async () => order,
  xxh3: (bytes) => BigInt(Bun.hash.xxHash3(bytes)),
};
const convert = (options: Partial<ConvertOptions> = {}, changed: Partial<ConvertTools> = {}) =>
  convertWith({ ...tools, ...changed }, { source, store_dir: store, ...options });
const storeNames = () => readdir(store).catch(() => []);

/** Flips one byte of a file. */
async function damage(path: string, offset: number): Promise<void> {
  const file = await open(path, "r+");
  const byte = new Uint8Array(1);
  await file.read(byte, 0, 1, offset);
  await file.write(
    byte.map((b) => b ^ 0x55),
    0,
    1,
    offset,
  );
  await file.close();
}

describe("a conversion", () => {
  test("makes a checkpoint whose files are what its manifest says", async () => {
    const result = await convert();
    expect(result.already_present).toBe(false);
    expect(result.directory).toBe(join(store, result.digest));
    const files = (await readdir(result.directory)).toSorted();
    expect(files).toEqual(["header.gguf", "manifest.json", "origin.json", "weights.bin"]);
    const stored = JSON.parse(await readFile(join(result.directory, "manifest.json"), "utf8"));
    expect(manifestSchema.parse(stored)).toEqual(result.manifest);
    const weights = await readFile(join(result.directory, "weights.bin"));
    expect(weights.length).toBe(result.manifest.weights.bytes);
    expect(result.manifest.tensors.map((tensor) => tensor.name)).toEqual(order);
    const values = result.manifest.tensors.map((tensor) => weights.readFloatLE(tensor.offset));
    expect(values).toEqual([1, 3, 2]);
  });

  test("writes a header that opens as a GGUF file of full size with the same tensors", async () => {
    const { directory, manifest } = await convert();
    const model = await openGguf(join(directory, "header.gguf"));
    await model.close();
    const places = model.tensors.map((tensor) => [tensor.name, tensor.file_offset - manifest.header.bytes]);
    expect(places).toEqual(manifest.tensors.map((tensor) => [tensor.name, tensor.offset]));
    expect(model.sources[0]?.bytes).toBe(manifest.header.bytes + manifest.weights.bytes);
  });

  test("notes the origin beside the content", async () => {
    const { directory } = await convert();
    const origin = originSchema.parse(JSON.parse(await readFile(join(directory, "origin.json"), "utf8")));
    expect(origin.uri).toBe(`file://${source}`);
    expect(origin.revision).toMatch(/^[0-9a-f]{64}$/);
  });

  test("reports progress up to the size of the weights", async () => {
    const reports: { bytes_done: number; bytes_total: number }[] = [];
    const { manifest } = await convert({ on_progress: (progress) => reports.push(progress) });
    const { bytes } = manifest.weights;
    expect(reports.at(-1)).toEqual({ bytes_done: bytes, bytes_total: bytes });
  });
});

describe("the digest", () => {
  test("is the same for a copy, for split files and for another order in the file", async () => {
    const { digest } = await convert();
    await copyFile(source, join(folder, "copy.gguf"));
    const [, second = ""] = writeSplitGguf(join(folder, "parts.gguf"), leastMetadata, leastTensors, 2);
    const reordered = join(folder, "reordered.gguf");
    writeGgufFile(reordered, leastMetadata.toReversed(), leastTensors.toReversed());
    for (const other of [join(folder, "copy.gguf"), second, reordered]) {
      const result = await convert({ source: other, store_dir: join(folder, "other") });
      expect(result.digest).toBe(digest);
    }
  });

  test("is another one for other weights and for other metadata", async () => {
    const { digest } = await convert();
    const weights = join(folder, "weights.gguf");
    writeGgufFile(weights, leastMetadata, [
      floatTensor("token_embd.weight", [64, 3], 9),
      ...leastTensors.slice(1),
    ]);
    const metadata = join(folder, "metadata.gguf");
    writeGgufFile(metadata, [...leastMetadata, ["general.license", "string", "cc0-1.0"]], leastTensors);
    const others = [await convert({ source: weights }), await convert({ source: metadata })];
    expect(new Set([digest, ...others.map((other) => other.digest)]).size).toBe(3);
    expect(await storeNames()).toHaveLength(3);
  });
});

describe("a store that holds the checkpoint already", () => {
  test("is not written to", async () => {
    const first = await convert();
    const before = await stat(first.directory);
    const second = await convert();
    expect(second).toMatchObject({ digest: first.digest, directory: first.directory, already_present: true });
    const after = await stat(first.directory);
    expect([after.ino, after.mtimeMs]).toEqual([before.ino, before.mtimeMs]);
    expect(await storeNames()).toEqual([first.digest]);
  });

  test.each([
    ["a flipped bit in the weights", (directory: string) => damage(join(directory, "weights.bin"), 700)],
    ["a flipped bit in the header", (directory: string) => damage(join(directory, "header.gguf"), 60)],
    ["cut-off weights", (directory: string) => truncate(join(directory, "weights.bin"), 100)],
    ["no manifest", (directory: string) => rm(join(directory, "manifest.json"))],
    ["a wrong manifest", (directory: string) => writeFile(join(directory, "manifest.json"), "{}")],
  ])("gets it anew when there is %s", async (_, spoil) => {
    const first = await convert();
    const weights = await readFile(join(first.directory, "weights.bin"));
    await spoil(first.directory);
    const second = await convert();
    expect(second).toMatchObject({ digest: first.digest, already_present: false });
    expect(await readFile(join(first.directory, "weights.bin"))).toEqual(weights);
    expect(await convert()).toMatchObject({ already_present: true });
    expect(await storeNames()).toEqual([first.digest]);
  });

  test("gets one checkpoint from several conversions at once", async () => {
    const results = await Promise.all(Array.from({ length: 4 }, () => convert()));
    expect(new Set(results.map((result) => result.digest)).size).toBe(1);
    expect(results.filter((result) => !result.already_present)).toHaveLength(1);
    expect(await storeNames()).toEqual([results[0]?.digest ?? ""]);
  });
});

describe("a conversion that fails", () => {
  test("in the engine library leaves nothing behind", async () => {
    const plan = async () => {
      throw new Error("defect");
    };
    await expect(convert({}, { plan })).rejects.toThrow("defect");
    expect(await storeNames()).toEqual([]);
  });

  test("because the source became shorter meanwhile leaves nothing behind", async () => {
    const plan = async () => {
      await truncate(source, 1000);
      return order;
    };
    await expect(convert({}, { plan })).rejects.toMatchObject({ code: "file_changed" });
    expect(await storeNames()).toEqual([]);
  });

  test.each([
    ["before it begins", 0],
    ["at its last chunk", 1],
  ])("because it was cancelled %s leaves nothing behind", async (_, when) => {
    const abort = new AbortController();
    if (when === 0) abort.abort();
    const on_progress = () => abort.abort();
    const failure = convert({ signal: abort.signal, on_progress });
    await expect(failure).rejects.toMatchObject({ code: "cancelled" });
    expect(await storeNames()).toEqual([]);
  });

  test("because the store cannot be made says so without a stack of system words", async () => {
    await writeFile(store, "a file");
    await expect(convert()).rejects.toMatchObject({
      code: "io_error",
      message: expect.stringContaining("in the checkpoint store"),
    });
  });

  test("because the disk is too small says how much is missing", async () => {
    const { bavail, bsize } = await statfs(folder);
    const bytes = bavail * bsize + 2 ** 30;
    const huge = { name: "blk.0.ffn_up.weight", shape: [bytes], type: 24, bytes, data: () => [] };
    writeGgufFile(source, leastMetadata, [huge]);
    await truncate(source, bytes + 4096);
    const failure = convert({}, { plan: async () => [] });
    await expect(failure).rejects.toMatchObject({
      code: "disk_full",
      message: expect.stringMatching(/needs \d+ bytes on the store's disk, \d+ are free/),
    });
    expect(await storeNames()).toEqual([]);
  });
});
