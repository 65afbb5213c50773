import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lockFolder } from "./folder-lock.ts";

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "sllm-lock-"));
  path = join(folder, "database.lock");
});
afterEach(() => rmSync(folder, { recursive: true }));

const write = (owner: unknown) => writeFileSync(path, JSON.stringify(owner));

test("a lock is held until it is released", () => {
  const lock = lockFolder(path);
  expect(() => lockFolder(path)).toThrow(`in use by process ${process.pid}`);
  lock.release();
  expect(existsSync(path)).toBe(false);
  lockFolder(path).release();
});

test("the lock of a process that is gone is taken over", () => {
  const gone = Bun.spawnSync(["true"]).pid;
  write({ pid: gone, started: "boot:1" });
  const lock = lockFolder(path);
  expect(() => lockFolder(path)).toThrow("in use");
  lock.release();
});

test("a living process with the number of the dead owner does not hold its lock", () => {
  write({ pid: process.ppid, started: "another boot:1" });
  lockFolder(path).release();
});

test("a damaged lock is taken over", () => {
  writeFileSync(path, "{");
  lockFolder(path).release();
});

test("nothing but the lock is left beside it", () => {
  write({ pid: process.ppid, started: "another boot:1" });
  const lock = lockFolder(path);
  expect(readdirSync(folder)).toEqual(["database.lock"]);
  expect(() => lockFolder(path)).toThrow();
  expect(readdirSync(folder)).toEqual(["database.lock"]);
  lock.release();
  expect(readdirSync(folder)).toEqual([]);
});
