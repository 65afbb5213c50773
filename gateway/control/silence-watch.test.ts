/** Who is silent: measured by the watcher's own time, held against nobody who could not report. */
import { expect, test } from "bun:test";
import type { WorkerRow } from "../../schema/db/tables.ts";
import { makeRegisterRequest } from "../../test/support/cluster-facts.ts";
import { SilenceWatch } from "./silence-watch.ts";

const [lease_ms, return_ms] = [3_000, 10_000];

function worker(heartbeat_sequence: number, fields: Partial<WorkerRow> = {}): WorkerRow {
  const { incarnation, url, version, links, problems } = makeRegisterRequest();
  const at = new Date(0);
  const known = { incarnation, url, version, links, problems, created_at: at, last_heartbeat_at: at };
  return { ...known, worker_id: "w-1", incarnation: "a", state: "ready", heartbeat_sequence, ...fields };
}

/** Looks every second at what `rowsAt` gives; returns when somebody was silent first. */
function firstSilence(
  watch: SilenceWatch,
  end_s: number,
  rowsAt: (second: number) => WorkerRow[],
): number | null {
  for (let second = 0; second <= end_s; second++) {
    watch.look(rowsAt(second), second * 1_000);
    if (watch.silent(second * 1_000).length > 0) return second;
  }
  return null;
}

const newWatch = () => new SilenceWatch({ lease_ms, return_ms });

test("a worker whose reports go on changing is never silent", () => {
  expect(firstSilence(newWatch(), 600, (second) => [worker(second)])).toBeNull();
  const restarting = (second: number) => [worker(-1, { incarnation: `${second}` })];
  expect(firstSilence(newWatch(), 600, restarting)).toBeNull();
});

test("one that was heard is silent a lease after its last report", () => {
  expect(firstSilence(newWatch(), 600, (second) => [worker(Math.min(second, 5))])).toBe(9);
});

test("one that registers during the watch was heard", () => {
  expect(firstSilence(newWatch(), 600, (second) => (second < 5 ? [] : [worker(-1)]))).toBe(9);
});

test("one that has not been heard since the watch began is given the time to come back", () => {
  expect(firstSilence(newWatch(), 600, () => [worker(7)])).toBe(11);
});

test("after the database was away all begins anew, whoever was heard before", () => {
  const watch = newWatch();
  firstSilence(watch, 60, (second) => [worker(second)]);
  watch.reset();
  watch.look([worker(60)], 300_000);
  expect(watch.silent(300_000 + 3_500)).toEqual([]);
  watch.look([worker(60)], 302_000);
  watch.look([worker(61)], 304_000);
  watch.look([worker(61)], 306_000);
  watch.look([worker(61)], 307_001);
  expect(watch.silent(307_001)).toMatchObject([{ worker_id: "w-1", heartbeat_sequence: 61 }]);
});

test("a watcher that was held up itself holds nothing against anybody", () => {
  const watch = newWatch();
  firstSilence(watch, 10, (second) => [worker(second)]);
  watch.look([worker(10)], 60_000);
  expect(watch.silent(60_000)).toEqual([]);
});

test("who is lost or gone cannot be lost once more", () => {
  for (const state of ["lost", "gone"] as const) {
    expect(firstSilence(newWatch(), 60, () => [worker(1, { state })])).toBeNull();
  }
});
