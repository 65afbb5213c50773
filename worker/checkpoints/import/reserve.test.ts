import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { writeGgufFile } from "../../../test/models/generator/gguf-file.ts";
import { leastMetadata, leastTensors } from "../../../test/support/gguf.ts";
import { type TinyCheckpoint, writeTinyCheckpoint } from "../../../test/support/tiny-checkpoint.ts";
import { evict, protectionOf, storeEntries } from "./eviction.ts";
import { openGguf } from "./gguf-splits.ts";
import { ownerMark } from "./incoming.ts";
import { isPinned, markDeployed, markUsed, pin, unpin } from "./marks.ts";
import { originOf } from "./origin.ts";
import { createOwned, listOwned, removeOwned, sweepOwned } from "./owned-files.ts";
import { reserveRoom, trimStore } from "./reserve.ts";

let folder: string;
let store: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "sllm-reserve-"));
  store = path.join(folder, "checkpoints");
  mkdirSync(store);
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const pageBytes = 4096;

/** A checkpoint of 16 pages whose source is there; the nth was used n seconds into the past day. */
async function stored(n: number): Promise<TinyCheckpoint> {
  const source = path.join(folder, `source-${n}.gguf`);
  writeGgufFile(source, leastMetadata, leastTensors);
  const model = await openGguf(source);
  const checkpoint = writeTinyCheckpoint(store, { pages: 16, fill: n });
  const origin = originOf(source, model.sources, "2026-01-01T00:00:00Z");
  await model.close();
  writeFileSync(path.join(checkpoint.directory, "origin.json"), JSON.stringify(origin));
  const at = new Date(Date.now() - 86_400_000 + n * 1000);
  utimesSync(path.join(checkpoint.directory, "manifest.json"), at, at);
  return checkpoint;
}

const deployed = (...digests: string[]) => markDeployed(store, "w", { digests, known_at_ms: Date.now() });
const present = async () => (await storeEntries(store)).map((entry) => entry.digest);
const reserve = async (bytes: number, disk_bytes: number) =>
  reserveRoom({ store_dir: store, bytes, disk_bytes, owner: await ownerMark() });
const bytesOf = async () => (await storeEntries(store)).reduce((sum, entry) => sum + entry.bytes, 0);

async function whyKept(digest: string) {
  const entry = (await storeEntries(store)).find((one) => one.digest === digest);
  if (entry === undefined) throw new Error("it is gone");
  return await protectionOf(store, entry);
}

describe("a checkpoint", () => {
  test("may go only when nobody pinned, uses or deployed it and its source is there as it was", async () => {
    const { digest } = await stored(1);
    expect(await whyKept(digest)).toBe("deployed");
    await deployed();
    expect(await whyKept(digest)).toBeNull();
    await deployed(digest);
    expect(await whyKept(digest)).toBe("deployed");
    await deployed();
    await pin(store, digest);
    expect(await whyKept(digest)).toBe("pinned");
    await unpin(store, digest);
    const use = await createOwned(store, "using", digest);
    expect(await whyKept(digest)).toBe("in use");
    await removeOwned(store, use);
    const source = path.join(folder, "source-1.gguf");
    renameSync(source, `${source}.away`);
    expect(await whyKept(digest)).toBe("last copy");
    renameSync(`${source}.away`, source);
    expect(await whyKept(digest)).toBeNull();
    utimesSync(source, new Date(), new Date(1));
    expect(await whyKept(digest)).toBe("last copy");
  });

  test("that came after the last word of a gateway stays, and so does one that was used since", async () => {
    const old = await stored(1);
    await deployed();
    await markUsed(store, old.digest);
    expect(await whyKept(old.digest)).toBe("deployed");
  });

  test("taken into use while it is evicted comes back whole", async () => {
    const { digest, directory } = await stored(1);
    await createOwned(store, "using", digest);
    expect(await evict(store, digest)).toBe(false);
    expect(existsSync(path.join(directory, "manifest.json"))).toBe(true);
    expect(readdirSync(store).filter((name) => name.startsWith(".incoming"))).toEqual([]);
  });

  test("keeps its pin when its folder is replaced", async () => {
    const { digest, directory } = await stored(1);
    await pin(store, digest);
    rmSync(directory, { recursive: true });
    await stored(1);
    expect(await isPinned(store, digest)).toBe(true);
  });
});

describe("room for a checkpoint", () => {
  test("is made by evicting the least recently used, and no more than needed", async () => {
    const [a, b, c] = [await stored(1), await stored(2), await stored(3)];
    await deployed();
    const budget = await bytesOf();
    const room = await reserve(16 * pageBytes, budget);
    expect(await present()).toEqual([b.digest, c.digest]);
    expect(existsSync(a.directory)).toBe(false);
    await room.release();
  });

  test("is refused with the numbers when protected ones would have to go, and nothing is evicted", async () => {
    const [a, b] = [await stored(1), await stored(2)];
    await deployed(a.digest);
    const refused = reserve(32 * pageBytes, await bytesOf());
    await expect(refused).rejects.toMatchObject({
      code: "disk_full",
      message: expect.stringMatching(/needs 131072 bytes of the \d+ .* 1 could go \(1 deployed stay\)/),
    });
    expect(await present()).toEqual([a.digest, b.digest]);
    expect(await listOwned(store, "reserved")).toEqual([]);
  });

  test("that one holds is not given to another; of many at once exactly those that fit get it", async () => {
    await stored(1);
    await deployed();
    const each = 16 * pageBytes;
    const budget = (await bytesOf()) + 2 * each;
    const outcomes = await Promise.allSettled(Array.from({ length: 6 }, () => reserve(each, budget)));
    const held = outcomes.filter((outcome) => outcome.status === "fulfilled");
    // Two fit beside the stored one, a third in its place.
    expect(held.length).toBeGreaterThanOrEqual(2);
    expect(held.length).toBeLessThanOrEqual(3);
    const reserved = (await listOwned(store, "reserved")).length * each;
    expect(reserved + (await bytesOf())).toBeLessThanOrEqual(budget);
    for (const outcome of held) await outcome.value.release();
    const again = await reserve(each, budget);
    await again.release();
    expect(await listOwned(store, "reserved")).toEqual([]);
  });

  test("that a killed process had reserved is free again", async () => {
    await stored(1);
    await deployed();
    const [host = ""] = (await ownerMark()).split("-");
    const dead = `${host}-2147483646-1-000000000000`;
    writeFileSync(path.join(store, `.reserved-${dead}-ffffffffff`), "");
    const room = await reserve(pageBytes, (await bytesOf()) + pageBytes);
    await room.release();
    await sweepOwned(store);
    expect(readdirSync(store).filter((name) => name.startsWith(".reserved"))).toEqual([]);
  });
});

test("a store above its budget is trimmed as far as that is allowed, each one announced before", async () => {
  const [a, b, c] = [await stored(1), await stored(2), await stored(3)];
  await deployed(b.digest);
  const announced: string[] = [];
  const evicted = await trimStore(store, 0, async (digest) => {
    announced.push(digest);
    expect(await present()).toContain(digest);
    if (digest === c.digest) await pin(store, digest);
  });
  expect(announced).toEqual([a.digest, c.digest]);
  expect(evicted).toEqual(announced);
  expect(await present()).toEqual([b.digest, c.digest]);
});
