import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdir, mkdtemp, readdir, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { createIncoming, publish, sweepIncoming } from "./incoming.ts";

let store = "";
beforeEach(async () => {
  store = await mkdtemp(join(tmpdir(), "sllm-incoming-"));
});
afterEach(async () => {
  await rm(store, { recursive: true });
});

describe("a sweep", () => {
  test("keeps folders of living processes and anything that is no temporary folder", async () => {
    const mine = await createIncoming(store);
    await mkdir(join(store, "a".repeat(64)));
    await mkdir(join(store, ".incoming-something-else"));
    await sweepIncoming(store);
    expect((await readdir(store)).toSorted()).toEqual(
      [basename(mine), "a".repeat(64), ".incoming-something-else"].toSorted(),
    );
  });

  test("removes folders whose process is gone or is another one with its number", async () => {
    const mine = basename(await createIncoming(store));
    const [, host = "", pid = "", start = "", random = ""] =
      /^\.incoming-(\w+)-(\d+)-(\d+)-(\w+)$/.exec(mine) ?? [];
    const reused = `.incoming-${host}-${pid}-${Number(start) + 1}-${random}`;
    const gone = `.incoming-${host}-${2 ** 30}-${start}-${random}`;
    for (const name of [reused, gone]) {
      await mkdir(join(store, name));
      await writeFile(join(store, name, "weights.bin"), "x");
    }
    await sweepIncoming(store);
    expect(await readdir(store)).toEqual([mine]);
  });

  test("removes folders of other hosts only when nothing changed in them for a day", async () => {
    const name = (random: string) => `.incoming-0123456789ab-1-1-${random}`;
    const [fresh, old, busy] = [name("00000000000a"), name("00000000000b"), name("00000000000c")];
    for (const folder of [fresh, old, busy]) {
      await mkdir(join(store, folder));
      await writeFile(join(store, folder, "weights.bin"), "x");
    }
    const longAgo = new Date("2020-01-01");
    await utimes(join(store, old, "weights.bin"), longAgo, longAgo);
    for (const folder of [old, busy]) await utimes(join(store, folder), longAgo, longAgo);
    await sweepIncoming(store);
    expect((await readdir(store)).toSorted()).toEqual([fresh, busy]);
  });

  test("of a store that does not exist finds nothing", async () => {
    await sweepIncoming(join(store, "missing"));
    expect(await readdir(store)).toEqual([]);
  });
});

describe("publishing", () => {
  test("moves the folder to its name", async () => {
    const incoming = await createIncoming(store);
    await writeFile(join(incoming, "a"), "1");
    expect(await publish(incoming, store, "final", false)).toBe(true);
    expect(await readdir(store)).toEqual(["final"]);
  });

  test("leaves what is there unless told to replace it", async () => {
    await mkdir(join(store, "final"));
    await writeFile(join(store, "final", "old"), "1");
    const incoming = await createIncoming(store);
    await writeFile(join(incoming, "new"), "1");
    expect(await publish(incoming, store, "final", false)).toBe(false);
    expect(await readdir(join(store, "final"))).toEqual(["old"]);
    expect(await publish(incoming, store, "final", true)).toBe(true);
    expect(await readdir(join(store, "final"))).toEqual(["new"]);
    expect(await readdir(store)).toEqual(["final"]);
  });
});
