import { expect, test } from "bun:test";
import { SllmError } from "../../schema/error.ts";
import { backoffMs, StartHistory } from "./start-history.ts";

const failure = new SllmError("model_load_failed", "no");

test("the pause doubles with each failure in a row, up to a minute", () => {
  expect([1, 2, 3, 6, 7, 99].map((failures) => backoffMs(failures))).toEqual([
    1_000, 2_000, 4_000, 32_000, 60_000, 60_000,
  ]);
});

test("a failed start refuses the next with the same error until its pause is over", () => {
  const history = new StartHistory();
  history.failed("m", "c", failure, 5_000);
  expect(history.refusal("m", "c", 5_400)).toMatchObject({ code: "model_load_failed", retry_after_ms: 600 });
  expect(history.refusal("m", "c", 6_000)).toBeNull();
  history.failed("m", "c", failure, 6_000);
  expect(history.refusal("m", "c", 6_000)?.retry_after_ms).toBe(2_000);
});

test("success, another checkpoint and deletion clean the record", () => {
  const history = new StartHistory();
  history.failed("m", "c", failure, 0);
  expect(history.refusal("m", "other", 0)).toBeNull();
  history.failed("m", "other", failure, 0);
  expect(history.refusal("m", "other", 0)?.retry_after_ms).toBe(1_000);
  history.succeeded("m");
  expect(history.hasFailed("m", "other")).toBe(false);
  history.failed("m", "c", failure, 0);
  history.keepOnly(() => false);
  expect(history.hasFailed("m", "c")).toBe(false);
});

test("starts that something outside has ended pause for seconds at most, however many in a row", () => {
  const history = new StartHistory();
  for (let i = 0; i < 20; i++) history.failed("m", "c", failure, 0, "engine_killed");
  expect(history.refusal("m", "c", 0)?.retry_after_ms).toBe(4_000);
  expect(history.admit("m", "c", 1_000)).toBe(3_000);
  expect(history.refusal("m", "c", 4_000)).toBeNull();
});

test("a model's own failures and those from outside are counted apart", () => {
  const history = new StartHistory();
  for (let i = 0; i < 5; i++) history.failed("m", "c", failure, 0, "engine_killed");
  history.failed("m", "c", failure, 0);
  expect(history.refusal("m", "c", 0)?.retry_after_ms).toBe(1_000);
  expect(() => history.admit("m", "c", 0)).toThrow("no");
  expect(history.admit("m", "c", 1_000)).toBe(0);
  history.failed("m", "c", failure, 0, "engine_killed");
  expect(history.refusal("m", "c", 0)?.retry_after_ms).toBe(1_000);
});
