import { afterEach, beforeEach, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { mkdir, rename } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { limits } from "../../../schema/limits.ts";
import {
  type TinyCheckpoint,
  type TinyOptions,
  tinyContent,
  writeTinyCheckpoint,
} from "../../../test/support/tiny-checkpoint.ts";
import { incomingFolderName } from "./incoming.ts";
import { type VerifyOptions, type VerifyProgress, verifyStoreWith } from "./verify-store.ts";

/** Stands for the native library's digest: any function that tells bytes apart. */
const xxh3 = (bytes: Uint8Array) => createHash("md5").update(bytes).digest().readBigUInt64BE();
const pages = 4;

let store = "";
beforeEach(() => {
  store = mkdtempSync(join(tmpdir(), "sllm-verify-store-"));
});
afterEach(() => rmSync(store, { recursive: true, force: true }));

const write = (options: TinyOptions = {}): TinyCheckpoint =>
  writeTinyCheckpoint(store, { pages, xxh3, ...options });
const verify = (options: Partial<VerifyOptions> = {}) =>
  verifyStoreWith(xxh3, { store_dir: store, ...options });
/** Damages of a store with one checkpoint. */
const damages = async (options: Partial<VerifyOptions> = {}) =>
  (await verify(options)).checkpoints[0]?.damages;

function flipBit(file: string, offset: number): void {
  const bytes = readFileSync(file);
  bytes[offset] = (bytes[offset] ?? 0) ^ 1;
  writeFileSync(file, bytes);
}

test("a good store is whole, every byte of weights was compared, and the progress ends at the total", async () => {
  const digests = [write({ fill: 1 }).digest, write({ fill: 2 }).digest].sort();
  const seen: VerifyProgress[] = [];
  const result = await verify({ strong: true, on_progress: (progress) => seen.push(progress) });
  expect(result).toEqual({
    store_dir: store,
    checkpoints: digests.map((digest) => ({ digest, bytes: pages * 4096, damages: [] })),
    leftovers: [],
  });
  const done = seen.map((progress) => progress.bytes_done);
  expect(done).toEqual(Array.from({ length: 2 * pages }, (_, i) => (i + 1) * 4096));
  expect(seen.every((progress) => progress.bytes_total === 2 * pages * 4096)).toBe(true);
});

test("a flipped bit is found with file, offset and both digests; what follows is compared all the same", async () => {
  const { weights_path, manifest } = write();
  flipBit(weights_path, 4096 + 17);
  flipBit(weights_path, 3 * 4096);
  const found = await damages();
  expect(found?.map((damage) => [damage.file, damage.offset])).toEqual([
    ["weights.bin", 4096],
    ["weights.bin", 12288],
  ]);
  expect(found?.[0]?.expected).toBe(`XXH3 ${manifest.weights.chunks[1]?.xxh3}`);
  expect(found?.[0]?.found).toMatch(/^XXH3 [0-9a-f]{16}$/);
});

test("bytes that only the strong digest tells apart are found by the strong check alone", async () => {
  const { weights_path } = write({ xxh3: () => 7n });
  flipBit(weights_path, 0);
  const same = () => 7n;
  const fast = await verifyStoreWith(same, { store_dir: store });
  expect(fast.checkpoints[0]?.damages).toEqual([]);
  const strong = await verifyStoreWith(same, { store_dir: store, strong: true });
  expect(strong.checkpoints[0]?.damages).toMatchObject([
    { file: "weights.bin", offset: 0, found: expect.stringMatching(/^SHA-256 [0-9a-f]{64}$/) },
  ]);
});

test("a changed header is found by its digest; its empty rest does not matter", async () => {
  const { header_path, manifest } = write();
  flipBit(header_path, manifest.header.bytes + 5);
  expect(await damages()).toEqual([]);
  flipBit(header_path, 3);
  expect(await damages()).toMatchObject([
    { file: "header.gguf", offset: 0, expected: `SHA-256 ${manifest.header.sha256}` },
  ]);
});

test("a truncated file is damage by its size, and the chunks that are left are compared", async () => {
  const { weights_path } = write();
  flipBit(weights_path, 0);
  truncateSync(weights_path, 2 * 4096 + 5);
  const result = await verify();
  expect(result.checkpoints[0]?.damages).toMatchObject([
    { file: "weights.bin", offset: null, expected: `${4 * 4096} bytes`, found: `${2 * 4096 + 5} bytes` },
    { file: "weights.bin", offset: 0 },
  ]);
  expect(result.checkpoints[0]?.bytes).toBe(2 * 4096);
});

test.each(["manifest.json", "header.gguf", "weights.bin"])(
  "without %s a checkpoint is damaged, and others are read on",
  async (name) => {
    const first = write({ fill: 1 });
    write({ fill: 2 });
    rmSync(join(first.directory, name));
    const { checkpoints } = await verify();
    const broken = checkpoints.find((checkpoint) => checkpoint.damages.length > 0);
    expect(broken?.digest).toBe(first.digest);
    expect(broken?.damages).toMatchObject([
      { file: name, offset: null, found: expect.stringContaining("no such file") },
    ]);
    expect(checkpoints).toHaveLength(2);
  },
);

test("a manifest of other content, and a folder with another's name, are damage", async () => {
  const { directory } = write();
  const { manifest } = tinyContent({ pages, xxh3 });
  writeFileSync(join(directory, "manifest.json"), JSON.stringify({ ...manifest, digest: "a".repeat(64) }));
  expect(await damages()).toMatchObject([
    { file: "manifest.json", found: expect.stringContaining("does not belong") },
  ]);
  writeFileSync(join(directory, "manifest.json"), JSON.stringify(manifest));
  await rename(directory, join(store, "b".repeat(64)));
  expect(await damages()).toEqual([
    {
      file: "manifest.json",
      offset: null,
      expected: `digest ${"b".repeat(64)}`,
      found: `digest ${manifest.digest}`,
    },
  ]);
});

test("files that cannot be read are damage with the system's reason, without paths", async () => {
  const { weights_path, header_path } = write();
  rmSync(weights_path);
  symlinkSync(weights_path, weights_path);
  rmSync(header_path);
  await mkdir(header_path);
  const found = await damages();
  expect(found).toMatchObject([
    { file: "header.gguf", offset: null, found: expect.stringContaining("not a regular file") },
    { file: "weights.bin", offset: null, found: expect.stringContaining("ELOOP") },
  ]);
  expect(JSON.stringify(found)).not.toContain(store);
});

test("the list of damages is bounded", async () => {
  const { weights_path } = write({ pages: limits.verify_damages + 20 });
  writeFileSync(weights_path, new Uint8Array((limits.verify_damages + 20) * 4096));
  expect(await damages()).toHaveLength(limits.verify_damages);
});

test("only the wanted checkpoints are read; one that is not there is an error", async () => {
  const { digest } = write({ fill: 1 });
  const other = write({ fill: 2 });
  flipBit(other.weights_path, 0);
  const { checkpoints } = await verify({ digests: [digest, digest] });
  expect(checkpoints).toEqual([{ digest, bytes: pages * 4096, damages: [] }]);
  await expect(verify({ digests: ["c".repeat(64)] })).rejects.toMatchObject({ code: "not_found" });
});

test("temporary folders are named and are no damage; other names are nobody's business", async () => {
  write();
  const leftover = await incomingFolderName();
  await mkdir(join(store, leftover));
  await mkdir(join(store, ".incoming-notes"));
  const result = await verify();
  expect(result.leftovers).toEqual([leftover]);
  expect(result.checkpoints.map((checkpoint) => checkpoint.damages)).toEqual([[]]);
});

test("a store that is not there is an error, an empty one is whole", async () => {
  await expect(verify({ store_dir: join(store, "nowhere") })).rejects.toMatchObject({ code: "io_error" });
  expect((await verify()).checkpoints).toEqual([]);
});

test("an aborted check ends between two chunks", async () => {
  write();
  const stop = new AbortController();
  const result = verify({ signal: stop.signal, on_progress: () => stop.abort() });
  await expect(result).rejects.toMatchObject({ code: "cancelled" });
});
