/** The lock of a data folder: one owner at a time, and none that is dead. */
import { afterEach, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readLock, takeLock } from "./lock.ts";

const folders: string[] = [];
function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "sllm-lock-"));
  folders.push(folder);
  return folder;
}
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

describe("the lock of a data folder", () => {
  test("a second owner is refused, with the first one's process and address", () => {
    const folder = newFolder();
    const lock = takeLock(folder);
    lock.announce("http://127.0.0.1:8343");
    expect(() => takeLock(folder)).toThrow(
      `sllm is already running at http://127.0.0.1:8343 (process ${process.pid}) with the data folder ${folder}`,
    );
    expect(readLock(folder)).toMatchObject({
      isAlive: true,
      owner: { pid: process.pid, url: "http://127.0.0.1:8343" },
    });
    lock.release();
  });

  test("is free again after its release, and leaves no file behind", () => {
    const folder = newFolder();
    const lock = takeLock(folder);
    lock.release();
    lock.release();
    expect(readdirSync(folder)).toEqual([]);
    takeLock(folder).release();
  });

  test("of a process that is gone is taken over", () => {
    const folder = newFolder();
    const gone = Bun.spawnSync(["true"]).pid;
    writeFileSync(
      join(folder, "lock"),
      JSON.stringify({ pid: gone, start_ticks: "1", boot_id: "b", url: null }),
    );
    expect(readLock(folder)?.isAlive).toBe(false);
    const lock = takeLock(folder);
    expect(readLock(folder)?.owner.pid).toBe(process.pid);
    lock.release();
  });

  test("of another process with the same id is taken over: ids are used again", () => {
    const folder = newFolder();
    takeLock(folder);
    const path = join(folder, "lock");
    const owner = JSON.parse(readFileSync(path, "utf8"));
    writeFileSync(path, JSON.stringify({ ...owner, start_ticks: "1" }));
    takeLock(folder).release();
    expect(existsSync(path)).toBe(false);
  });

  test("that was damaged is taken over", () => {
    const folder = newFolder();
    writeFileSync(join(folder, "lock"), "{");
    takeLock(folder).release();
  });
});
