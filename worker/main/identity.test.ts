import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { keepWorkerId } from "./identity.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "sllm-identity-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test("the id is drawn once and kept", async () => {
  const drawn = await keepWorkerId(folder);
  expect(drawn).toMatch(/^w-[0-9a-f]{16}$/);
  expect(await keepWorkerId(folder)).toBe(drawn);
  expect(readdirSync(path.join(folder, "worker"))).toEqual(["id"]);
});

test("first starts at the same moment agree on one id", async () => {
  const ids = await Promise.all(Array.from({ length: 20 }, () => keepWorkerId(folder)));
  expect(new Set(ids).size).toBe(1);
});

test("a file that holds no id is refused by its name", async () => {
  await keepWorkerId(folder);
  writeFileSync(path.join(folder, "worker/id"), "");
  await expect(keepWorkerId(folder)).rejects.toThrow("worker/id does not hold a worker id");
});
