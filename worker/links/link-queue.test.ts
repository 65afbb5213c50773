import { beforeEach, expect, test } from "bun:test";
import fc from "fast-check";
import { ManualClock, settle } from "../../test/support/manual-clock.ts";
import { checkAsyncProperty } from "../../test/support/property.ts";
import { LinkQueue, type LinkTurn } from "./link-queue.ts";

const mebibyte = 1024 * 1024;
const never = new AbortController().signal;
let clock: ManualClock;
let queue: LinkQueue;

beforeEach(() => {
  clock = new ManualClock();
  queue = new LinkQueue({ link: "disk", parallel: 2, clock });
});

test("what a probe measured counts until loads have shown what the link does", async () => {
  const probed = new LinkQueue({ link: "disk", parallel: 1, clock, probed_bytes_per_s: () => 4 * mebibyte });
  expect(probed.report()).toMatchObject({ bandwidth_bytes_per_s: 4 * mebibyte, queued_ms: 0 });
  const turn = await probed.enter(8 * mebibyte, never, () => undefined);
  expect(probed.report()).toMatchObject({ queued_ms: 2_000 });
  await clock.advance(4_000);
  turn.moved(8 * mebibyte);
  turn.end();
  expect(probed.report().bandwidth_bytes_per_s).toBe(2 * mebibyte);
});

/** Enters and notes what becomes of it. */
function enter(bytes: number, signal = never) {
  const entry = { turn: null as LinkTurn | null, positions: [] as number[], error: null as unknown };
  queue
    .enter(bytes, signal, (position) => entry.positions.push(position))
    .then(
      (turn) => {
        entry.turn = turn;
      },
      (error) => {
        entry.error = error;
      },
    );
  return entry;
}

test("so many go at once, the rest in order, each knowing its place", async () => {
  const entries = [1, 2, 3, 4].map((n) => enter(n * mebibyte));
  await settle();
  expect(entries.map((e) => e.turn !== null)).toEqual([true, true, false, false]);
  expect(entries.map((e) => e.positions.at(-1))).toEqual([undefined, undefined, 1, 2]);
  entries[1]?.turn?.end();
  await settle();
  expect(entries.map((e) => e.turn !== null)).toEqual([true, true, true, false]);
  expect(entries[3]?.positions.at(-1)).toBe(1);
});

test("who leaves frees its place and the next moves up", async () => {
  const leaving = new AbortController();
  const entries = [enter(1), enter(1), enter(1, leaving.signal), enter(1)];
  leaving.abort();
  await settle();
  expect(entries[2]?.error).toMatchObject({ code: "cancelled" });
  expect(entries[3]?.positions.at(-1)).toBe(1);
  expect(queue.report().queued_bytes).toBe(3);
  const late = enter(1, leaving.signal);
  await settle();
  expect(late.error).toMatchObject({ code: "cancelled" });
});

test("what is queued counts down with the bytes that went over, in time by the link's own bandwidth", async () => {
  const first = enter(100 * mebibyte);
  await settle();
  expect(queue.report()).toEqual({
    link: "disk",
    queued_bytes: 100 * mebibyte,
    queued_ms: 52,
    bandwidth_bytes_per_s: null,
  });
  await clock.advance(500);
  first.turn?.moved(100 * mebibyte);
  first.turn?.end();
  const bandwidth_bytes_per_s = 200 * mebibyte;
  expect(queue.report()).toMatchObject({ queued_bytes: 0, queued_ms: 0, bandwidth_bytes_per_s });
  enter(50 * mebibyte);
  expect(queue.report()).toMatchObject({ queued_ms: 250 });
});

test("idle time says nothing about the bandwidth, and two loads share it", async () => {
  const [a, b] = [enter(100 * mebibyte), enter(100 * mebibyte)];
  await clock.advance(500);
  a.turn?.moved(100 * mebibyte);
  b.turn?.moved(100 * mebibyte);
  a.turn?.end();
  b.turn?.end();
  await clock.advance(3_600_000);
  expect(queue.report().bandwidth_bytes_per_s).toBe(400 * mebibyte);
  const next = enter(512 * mebibyte);
  await clock.advance(900);
  next.turn?.moved(180 * mebibyte);
  next.turn?.end();
  expect(queue.report().bandwidth_bytes_per_s).toBeLessThan(400 * mebibyte);
});

const someSteps = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant("enter" as const), bytes: fc.integer({ min: 1, max: 1000 }) }),
    fc.record({ kind: fc.constantFrom("end" as const, "leave" as const), pick: fc.nat(20) }),
  ),
  { maxLength: 40 },
);

test("whatever comes, leaves and ends: never more at once than allowed, in order, and nothing is lost", async () => {
  await checkAsyncProperty(
    fc.record({ steps: someSteps, parallel: fc.integer({ min: 1, max: 3 }) }),
    async ({ steps, parallel }) => {
      queue = new LinkQueue({ link: "disk", parallel, clock });
      let line: { bytes: number; abort: AbortController; entry: ReturnType<typeof enter> }[] = [];
      for (const step of steps) {
        const running = line.slice(0, parallel);
        const waiting = line.slice(parallel);
        if (step.kind === "enter") {
          const abort = new AbortController();
          line.push({ bytes: step.bytes, abort, entry: enter(step.bytes, abort.signal) });
        } else {
          const among = step.kind === "end" ? running : waiting;
          const one = among[step.pick % Math.max(1, among.length)];
          if (one === undefined) continue;
          if (step.kind === "end") one.entry.turn?.end();
          else one.abort.abort();
          line = line.filter((other) => other !== one);
        }
        await settle();
        expect(line.map(({ entry }) => entry.turn !== null)).toEqual(line.map((_, i) => i < parallel));
        expect(line.slice(parallel).map(({ entry }) => entry.positions.at(-1))).toEqual(
          line.slice(parallel).map((_, i) => i + 1),
        );
        expect(queue.report().queued_bytes).toBe(line.reduce((sum, { bytes }) => sum + bytes, 0));
      }
    },
    100,
  );
});
