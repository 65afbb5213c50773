import { afterEach, beforeEach, expect, test } from "bun:test";
import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { LoadTrace } from "../../schema/cluster/loads.ts";
import { limits } from "../../schema/limits.ts";
import { LoadLog } from "./load-log.ts";

let folder: string;
let warnings: number;
const log = { info: () => {}, warn: () => void warnings++, error: () => {} };
beforeEach(() => {
  warnings = 0;
  folder = mkdtempSync(path.join(tmpdir(), "sllm-loads-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const file = () => path.join(folder, "loads.jsonl");
const everything = { limit: limits.kept_loads };

function trace(n: number, model_id = "m"): LoadTrace {
  return {
    instance_id: `i-${n.toString(16).padStart(16, "0")}`,
    model_id,
    checkpoint: "c".repeat(64),
    started_at: new Date(n).toISOString(),
    outcome: "ready",
    error: null,
    total_ms: n,
    source: "host",
    bytes: { weights: 1, direct: 0, cached: 0, buffered: 0, uploaded: 0 },
    read: null,
    stages: [],
    critical_path: [],
  };
}

test("the newest come first, by model, by instance, and only so many are kept", () => {
  const loads = new LoadLog({ file: file(), log });
  for (let n = 0; n < limits.kept_loads + 5; n++) loads.add(trace(n, n % 2 === 0 ? "even" : "odd"));
  const found = loads.find(everything);
  expect(found.map((one) => one.total_ms)).toEqual(
    Array.from({ length: limits.kept_loads }, (_, i) => limits.kept_loads + 4 - i),
  );
  expect(loads.find({ model_id: "even", limit: 2 }).map((one) => one.total_ms)).toEqual([204, 202]);
  expect(loads.find({ instance_id: trace(7).instance_id, limit: 9 })).toEqual([trace(7, "odd")]);
});

test("what was kept is there after a restart, a line that a crash cut short is not", async () => {
  const before = new LoadLog({ file: file(), log });
  before.add(trace(1));
  before.add(trace(2));
  await before.idle();
  appendFileSync(file(), JSON.stringify(trace(3)).slice(0, 50));
  const after = new LoadLog({ file: file(), log });
  await after.open();
  expect(after.find(everything)).toEqual([trace(2), trace(1)]);
});

test("the file is bounded: a full one replaces the one before", async () => {
  const lineBytes = JSON.stringify(trace(10)).length + 1;
  const loads = new LoadLog({ file: file(), log, file_bytes: 3 * lineBytes });
  for (let n = 10; n < 20; n++) loads.add(trace(n));
  await loads.idle();
  expect(readdirSync(folder).sort()).toEqual(["loads.jsonl", "loads.jsonl.1"]);
  for (const name of readdirSync(folder)) {
    expect(statSync(path.join(folder, name)).size).toBeLessThanOrEqual(3 * lineBytes);
  }
  expect(readFileSync(file(), "utf8")).toContain('"total_ms":19');
});

test("a folder that cannot be written costs the lines and one warning, not the traces", async () => {
  const loads = new LoadLog({ file: path.join(folder, "nowhere", "loads.jsonl"), log });
  for (let n = 0; n < 3; n++) loads.add(trace(n));
  await loads.idle();
  expect(warnings).toBe(1);
  expect(loads.find(everything)).toHaveLength(3);
});
