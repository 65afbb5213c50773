/** Old records go at a pace that keeps up and does not press. */
import { expect, test } from "bun:test";
import { limits } from "../../schema/limits.ts";
import type { Retention } from "../ports.ts";
import { RetentionSweep } from "./retention.ts";

const ages = { older_than_ms: 1_000, replay_ms: 500 };
const log = { info: () => {}, warn: () => {}, error: () => {} };

/** A store with so many old rows; records what it was asked. */
function sweepOf(rows: number) {
  const asked: Retention[] = [];
  let left = rows;
  const forget = async (retention: Retention) => {
    asked.push(retention);
    const removed = Math.min(left, retention.limit);
    left -= removed;
    return removed;
  };
  return { asked, sweep: new RetentionSweep({ store: { forget }, log }, ages) };
}

test("while much is left one removal follows the other, then there are pauses", async () => {
  const { asked, sweep } = sweepOf(2 * limits.retention_rows + 1);
  for (let turn = 0; turn < 10; turn++) await sweep.run(turn * limits.reconcile_ms);
  expect(asked).toHaveLength(3);
  expect(asked[0]).toEqual({ ...ages, limit: limits.retention_rows });
  await sweep.run(2 * limits.reconcile_ms + limits.retention_pause_ms);
  expect(asked).toHaveLength(4);
});

test("a removal that failed is tried again after a pause", async () => {
  let calls = 0;
  const forget = () => {
    calls += 1;
    return Promise.reject(new Error("away"));
  };
  const sweep = new RetentionSweep({ store: { forget }, log }, ages);
  await expect(sweep.run(0)).rejects.toThrow("away");
  await sweep.run(limits.reconcile_ms);
  expect(calls).toBe(1);
  await expect(sweep.run(limits.retention_pause_ms)).rejects.toThrow("away");
});
