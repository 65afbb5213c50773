import { describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findBun } from "./bun.mjs";
import { missingTools } from "./tools.mjs";

describe("what a bare machine needs", () => {
  test("on one that has it, nothing is missing", () => {
    expect(missingTools({ nodeVersion: "20.20.2", hasCommand: () => true })).toEqual([]);
  });

  test("each missing tool is one line that says how to get it", () => {
    const lines = missingTools({
      nodeVersion: "22.0.0",
      hasCommand: (name) => name !== "cmake" && name !== "g++",
    });
    expect(lines).toHaveLength(2);
    expect(lines[0]).toMatch(/^'g\+\+' is missing: .*apt-get install g\+\+$/);
    expect(lines[1]).toMatch(/^'cmake' is missing: .*apt-get install cmake$/);
  });

  test.each(["18.20.0", "19.9.9"])("Node %s is too old", (nodeVersion) => {
    expect(missingTools({ nodeVersion, hasCommand: () => true })).toEqual([
      `Node 20 or newer is needed, this is ${nodeVersion}: see https://nodejs.org`,
    ]);
  });
});

describe("Bun's executable", () => {
  const root = mkdtempSync(join(tmpdir(), "sllm-bun-"));
  const put = (path: string, bytes: number) => {
    const file = join(root, "node_modules", path);
    mkdirSync(join(file, ".."), { recursive: true });
    writeFileSync(file, "");
    truncateSync(file, bytes);
    chmodSync(file, 0o755);
    return file;
  };

  test("is looked for in the package, then in the platform's; a placeholder does not count", () => {
    expect(findBun(root)).toBeNull();
    put("bun/bin/bun.exe", 600);
    expect(findBun(root)).toBeNull();
    const ofPlatform = put("@oven/bun-linux-x64/bin/bun", 2 * 1024 * 1024);
    expect(findBun(root)).toBe(ofPlatform);
    const installed = put("bun/bin/bun.exe", 2 * 1024 * 1024);
    expect(findBun(root)).toBe(installed);
    rmSync(root, { recursive: true });
  });
});
