import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtemp, rename, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tinyContent, writeTinyCheckpoint } from "../../../test/support/tiny-checkpoint.ts";
import { parseManifest, readCheckpoint } from "./verify.ts";

let store = "";
beforeEach(async () => {
  store = await mkdtemp(join(tmpdir(), "sllm-verify-"));
});
afterEach(async () => {
  await rm(store, { recursive: true });
});

describe("a stored checkpoint", () => {
  test("is given with its manifest and the paths of its files", async () => {
    const { digest, directory, manifest } = writeTinyCheckpoint(store);
    expect(await readCheckpoint(directory)).toEqual({
      digest,
      directory,
      manifest,
      header_path: join(directory, "header.gguf"),
      weights_path: join(directory, "weights.bin"),
    });
  });

  test.each([
    ["header.gguf", "header.gguf has"],
    ["weights.bin", "weights.bin has"],
  ])("with a shortened %s is invalid", async (name, message) => {
    const { directory } = writeTinyCheckpoint(store);
    await truncate(join(directory, name), 5);
    await expect(readCheckpoint(directory)).rejects.toMatchObject({
      code: "checkpoint_invalid",
      message: expect.stringContaining(message),
    });
  });

  test("without its weights is invalid, without its manifest it is none", async () => {
    const { directory } = writeTinyCheckpoint(store);
    await rm(join(directory, "weights.bin"));
    await expect(readCheckpoint(directory)).rejects.toMatchObject({ code: "checkpoint_invalid" });
    await rm(join(directory, "manifest.json"));
    await expect(readCheckpoint(directory)).rejects.toThrow("There is no checkpoint");
  });

  test("in a folder of another name is invalid", async () => {
    const { directory } = writeTinyCheckpoint(store);
    await rename(directory, join(store, "b".repeat(64)));
    await expect(readCheckpoint(join(store, "b".repeat(64)))).rejects.toThrow("holds the checkpoint");
  });

  test("with an oversized manifest is refused before it is read", async () => {
    const { directory } = writeTinyCheckpoint(store);
    await writeFile(join(directory, "manifest.json"), "{");
    await truncate(join(directory, "manifest.json"), 65 * 1024 * 1024);
    await expect(readCheckpoint(directory)).rejects.toThrow("is larger than");
  });
});

describe("the text of a manifest", () => {
  const { manifest } = tinyContent();
  const text = (changes: object) => JSON.stringify({ ...manifest, ...changes });

  test("is accepted when everything fits", () => {
    expect(parseManifest(text({}))).toEqual(manifest);
  });

  test("of another version is not supported, whatever else it holds", () => {
    expect(() => parseManifest('{"version":2}')).toThrow("format version 2");
    expect(() => parseManifest(text({ version: 2, news: true }))).toThrow("this release reads version 1");
  });

  test.each([
    ["that is no JSON", "{", "is not JSON"],
    ["that is no object", "[]", "manifest.json"],
    ["without a version", JSON.stringify({ ...manifest, version: undefined }), "version"],
    ["with an unknown field", text({ extra: 1 }), "extra"],
    ["whose digest is another content's", text({ digest: "0".repeat(64) }), "does not belong"],
    ["with a chunk too few", text({ weights: { ...manifest.weights, chunks: [] } }), "chunks"],
    ["without tensors", text({ tensors: [] }), "tensors"],
  ])("%s is invalid", (_, content, message) => {
    expect(() => parseManifest(content)).toThrow(message);
  });

  test.each([
    ["off the alignment", 64, "is not aligned"],
    ["over the one before", 0, "overlaps"],
    ["beyond the file", 8192 - 128, "lies beyond"],
  ])("with a tensor %s is invalid", (_, offset, message) => {
    const [first] = manifest.tensors;
    const second = { ...first, name: "b", offset, bytes: 200 };
    expect(() => parseManifest(text({ tensors: [first, second] }))).toThrow(message);
  });
});
