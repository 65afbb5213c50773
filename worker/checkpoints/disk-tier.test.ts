import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { writeTinyCheckpoint } from "../../test/support/tiny-checkpoint.ts";
import type { LogFields } from "../ports.ts";
import { DiskTier } from "./disk-tier.ts";

let folder: string;
let warnings: LogFields[];
let disk: DiskTier;

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "sllm-disk-"));
  warnings = [];
  disk = new DiskTier({
    directory: folder,
    log: { info: () => {}, warn: (_, fields = {}) => warnings.push(fields), error: () => {} },
  });
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test("a folder that is not there holds no checkpoints, and that is said", async () => {
  rmSync(folder, { recursive: true });
  expect(await disk.scan()).toEqual([]);
  expect(disk.problems()).toMatchObject([{ checkpoint: null, error: { code: "store_missing" } }]);
  mkdirSync(folder);
  await disk.scan();
  expect(disk.problems()).toEqual([]);
});

test("complete checkpoints are reported with their bytes; drafts and strangers are not", async () => {
  const { digest, manifest } = writeTinyCheckpoint(folder);
  mkdirSync(path.join(folder, "draft-1"));
  mkdirSync(path.join(folder, "f".repeat(64)));
  expect(await disk.placements()).toEqual([
    {
      checkpoint: digest,
      tier: "disk",
      state: "present",
      bytes_present: manifest.header.bytes + manifest.weights.bytes,
    },
  ]);
  expect(warnings).toEqual([]);
});

test("a checkpoint appears and disappears with its files", async () => {
  expect(await disk.scan()).toEqual([]);
  const { digest, directory } = writeTinyCheckpoint(folder);
  expect((await disk.scan()).map((c) => c.digest)).toEqual([digest]);
  rmSync(directory, { recursive: true });
  expect(await disk.scan()).toEqual([]);
  await expect(disk.find(digest)).rejects.toMatchObject({ code: "checkpoint_unavailable" });
});

test("a broken manifest is left out, named once in the log, and refused by its reason", async () => {
  const { digest, directory } = writeTinyCheckpoint(folder);
  writeFileSync(path.join(directory, "manifest.json"), "{");
  expect(await disk.scan()).toEqual([]);
  expect(await disk.scan()).toEqual([]);
  expect(warnings).toHaveLength(1);
  expect(disk.problems()).toMatchObject([{ checkpoint: digest, error: { code: "checkpoint_invalid" } }]);
  await expect(disk.find(digest)).rejects.toMatchObject({ code: "checkpoint_invalid" });
});

test("a folder named by another digest is refused", async () => {
  const { directory } = writeTinyCheckpoint(folder);
  const other = "0".repeat(64);
  renameSync(directory, path.join(folder, other));
  await expect(disk.find(other)).rejects.toMatchObject({ code: "checkpoint_invalid" });
});

test("a file cut short after the first look is noticed at the next one", async () => {
  const { digest, weights_path } = writeTinyCheckpoint(folder);
  expect(await disk.find(digest)).toMatchObject({ digest });
  truncateSync(weights_path, 4096);
  await expect(disk.find(digest)).rejects.toThrow("weights.bin has 4096 bytes");
});

test("a header that differs from its digest is refused, also when it was good before", async () => {
  const { digest, header_path, manifest } = writeTinyCheckpoint(folder);
  const checkpoint = await disk.find(digest);
  await disk.verifyHeader(checkpoint);
  const wrong = new Uint8Array(manifest.header.bytes + manifest.weights.bytes).fill(7);
  writeFileSync(`${header_path}.new`, wrong);
  renameSync(`${header_path}.new`, header_path);
  await expect(disk.verifyHeader(checkpoint)).rejects.toThrow("header.gguf differs");
});
