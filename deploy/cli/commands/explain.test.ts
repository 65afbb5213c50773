/** How loads are shown. */
import { expect, test } from "bun:test";
import type { AdminLoad } from "../../../schema/api/admin.ts";
import { formatLoad } from "./explain.ts";

const load: AdminLoad = {
  worker_id: "w-0000000000000001",
  instance_id: "i-0000000000000001",
  model_id: "llama",
  checkpoint: "c".repeat(64),
  started_at: "2026-01-01T00:00:00.000Z",
  outcome: "ready",
  error: null,
  total_ms: 100,
  source: "disk",
  bytes: { weights: 2 ** 30, direct: 2 ** 30, cached: 0, buffered: 0, uploaded: 0 },
  read: null,
  stages: [
    { stage: "lookup", start_ms: 0, end_ms: 1, after: [] },
    { stage: "read", start_ms: 1, end_ms: 75, after: ["lookup"] },
    { stage: "model_build", start_ms: 50, end_ms: 100, after: ["lookup"] },
  ],
  critical_path: [
    { stage: "lookup", ms: 1 },
    { stage: "other", ms: 49 },
    { stage: "model_build", ms: 50 },
  ],
};

test("a load is a chart over its time, with what it waited for and where the time went", () => {
  expect(formatLoad(load).split("\n")).toEqual([
    "llama: ready after 100.0 ms, from disk 1.0 GiB past the page cache",
    "i-0000000000000001 on w-0000000000000001, 2026-01-01T00:00:00.000Z",
    "",
    `STAGE        FROM    MS  0 ${"-".repeat(29)} 100.0 ms  AFTER`,
    `lookup        0.0   1.0  =${" ".repeat(39)}`.trimEnd(),
    `read          1.0  74.0  ${"=".repeat(30)}${" ".repeat(10)}  lookup`,
    `model_build  50.0  50.0  ${" ".repeat(20)}${"=".repeat(20)}  lookup`,
    "",
    "critical path: lookup 1.0 > other 49.0 > model_build 50.0",
  ]);
});

test("a load that failed says why, and one from memory that nothing was read", () => {
  const error = { code: "checkpoint_invalid", message: "weights.bin: bad" } as const;
  const failed = formatLoad({
    ...load,
    outcome: "failed",
    error,
    source: null,
    stages: [],
    critical_path: [],
  });
  expect(failed).toContain("failed after 100.0 ms (checkpoint_invalid: weights.bin: bad), no byte was read");
  expect(failed).toContain("critical path: -");
  expect(formatLoad({ ...load, source: "host" })).toContain("1.0 GiB were in host memory");
  expect(formatLoad({ ...load, source: "shared" })).toContain("came with another load");
});
