import { expect, test } from "bun:test";
import fc from "fast-check";
import { loadStages, type TracedStage } from "../../schema/cluster/loads.ts";
import { checkProperty } from "../../test/support/property.ts";
import { criticalPath } from "./critical-path.ts";

const stage = (
  name: TracedStage["stage"],
  start_ms: number,
  end_ms: number,
  ...after: TracedStage["after"]
): TracedStage => ({ stage: name, start_ms, end_ms, after });

test("what ended last held the load up, and before it the condition that ended last", () => {
  const stages = [
    stage("lookup", 0, 1),
    stage("process", 1, 60, "lookup"),
    stage("reserve", 1, 2, "lookup"),
    stage("read", 2, 50, "reserve"),
    stage("model_build", 61, 90, "process", "reserve"),
  ];
  expect(criticalPath(stages, 90)).toEqual([
    { stage: "lookup", ms: 1 },
    { stage: "process", ms: 59 },
    { stage: "other", ms: 1 },
    { stage: "model_build", ms: 29 },
  ]);
  const slowDisk = stages.map((s) => (s.stage === "read" ? { ...s, end_ms: 120 } : s));
  expect(criticalPath(slowDisk, 120)).toEqual([
    { stage: "lookup", ms: 1 },
    { stage: "reserve", ms: 1 },
    { stage: "read", ms: 118 },
  ]);
});

test("a load without stages is all other", () => {
  expect(criticalPath([], 5)).toEqual([{ stage: "other", ms: 5 }]);
});

test("whatever the stages, the path is the whole time and no part of it is negative", () => {
  const someStages = fc
    .array(fc.record({ start: fc.nat(100), length: fc.nat(100), needs: fc.nat(255) }), { maxLength: 8 })
    .map((rows) =>
      rows.map(({ start, length, needs }, i) =>
        stage(
          loadStages[i] ?? "lookup",
          start,
          start + length,
          ...loadStages.slice(0, i).filter((_, j) => (needs >> j) % 2 === 1),
        ),
      ),
    );
  checkProperty(someStages, (stages) => {
    const total_ms = Math.max(0, ...stages.map((s) => s.end_ms));
    const path = criticalPath(stages, total_ms);
    expect(path.reduce((sum, part) => sum + part.ms, 0)).toBeCloseTo(total_ms, 3);
    for (const { ms } of path) expect(ms).toBeGreaterThanOrEqual(0);
  });
});
