import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { eventually } from "../../test/support/eventually.ts";
import { ManualClock } from "../../test/support/manual-clock.ts";
import { writeTinyCheckpoint } from "../../test/support/tiny-checkpoint.ts";
import type { LogFields } from "../ports.ts";
import { DiskBudget } from "./disk-budget.ts";
import { ownerMark } from "./import/incoming.ts";
import { lastUsedMs, readDeployed } from "./import/marks.ts";

let folder: string;
let warnings: LogFields[];
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "sllm-budget-"));
  warnings = [];
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function budget(directory = folder): DiskBudget {
  return new DiskBudget({
    directory,
    worker_id: "w-0000000000000001",
    disk_bytes: undefined,
    clock: new ManualClock(),
    log: { info: () => {}, warn: (_, fields = {}) => warnings.push(fields), error: () => {} },
    onChange: () => {},
  });
}

const uses = () => readdirSync(folder).filter((name) => name.startsWith(".using-"));

test("a checkpoint is marked as used once, however many use it, until the last lets it go", async () => {
  const { digest } = writeTinyCheckpoint(folder);
  const own = budget();
  const releases = await Promise.all([own.use(digest), own.use(digest)]);
  expect(uses()).toHaveLength(1);
  expect(await lastUsedMs(folder, digest)).not.toBeNull();
  releases[0]?.();
  await Bun.sleep(5);
  expect(uses()).toHaveLength(1);
  releases[1]?.();
  await eventually("the mark is gone", () => uses().length === 0);
});

test("what a gateway said is written down when it changes, as of the moment of the report", async () => {
  const own = budget();
  own.reporting();
  await own.heard(["a".repeat(64)], ["a".repeat(64), "b".repeat(64)]);
  expect(await readDeployed(folder)).toEqual({ digests: ["a".repeat(64)], known_at_ms: 0 });
  rmSync(path.join(folder, ".marks"), { recursive: true });
  await own.heard(["a".repeat(64)], ["b".repeat(64), "a".repeat(64)]);
  expect(await readDeployed(folder)).toBeNull();
  await own.heard([], ["b".repeat(64)]);
  expect(await readDeployed(folder)).toMatchObject({ digests: [] });
});

test("the start makes the folder and sweeps what killed processes left, nothing else", async () => {
  const store = path.join(folder, "checkpoints");
  await budget(store).start();
  const dead = "000000000000-1-1-000000000000";
  const own = await budget(store).use("c".repeat(64));
  mkdirSync(path.join(store, "stranger"));
  writeFileSync(path.join(store, `.using-${dead}-${"d".repeat(64)}`), "");
  const [host = ""] = (await ownerMark()).split("-");
  writeFileSync(path.join(store, `.reserved-${host}-2147483646-1-000000000000-ff`), "");
  mkdirSync(path.join(store, `.incoming-${host}-2147483646-1-000000000000`));
  await budget(store).start();
  const names = readdirSync(store);
  expect(names).toContain("stranger");
  expect(names.filter((name) => name.includes("2147483646"))).toEqual([]);
  expect(names.filter((name) => name.includes("c".repeat(64)))).toHaveLength(1);
  // Another host's mark may be alive: it goes by its age.
  expect(names).toContain(`.using-${dead}-${"d".repeat(64)}`);
  own();
});

test("a store that is away costs warnings, is not made anew by a mark, and the use goes on", async () => {
  const own = budget(path.join(folder, "nowhere"));
  const release = await own.use("c".repeat(64));
  expect(warnings).toEqual([{ reason: "no such file or directory" }]);
  release();
  await eventually("the release has tried", () => warnings.length === 2);
  await own.heard(["c".repeat(64)], []);
  expect(readdirSync(folder)).toEqual([]);
});
