import { beforeEach, expect, test } from "bun:test";
import type { EngineBeat } from "../../schema/cluster/activity.ts";
import { ManualClock, settle } from "../../test/support/manual-clock.ts";
import { Watchdog } from "./watchdog.ts";

const beat: EngineBeat = {
  slots: 1,
  running: 1,
  waiting: 0,
  kv_tokens: 64,
  kv_used_tokens: 8,
  steps: 1,
  computed_tokens: 8,
  last_step_tokens: 8,
  progress: 100,
  computing: true,
};

let clock: ManualClock;
let said: string[];
let watchdog: Watchdog;
beforeEach(() => {
  clock = new ManualClock();
  said = [];
  watchdog = new Watchdog({ clock, stall_ms: 10_000, onStall: (message) => said.push(message) });
  void watchdog.watch();
});

/** A beat each second. */
async function hear(seconds: number, at: (second: number) => EngineBeat | null): Promise<void> {
  for (let second = 0; second < seconds; second++) {
    await clock.advance(1_000);
    watchdog.heard(at(second));
  }
}

/** Time passes in small steps, as it does for whoever sleeps again and again. */
async function silence(seconds: number): Promise<void> {
  for (let second = 0; second < seconds; second++) await clock.advance(1_000);
}

test("a process that says nothing is given up after the time, not before", async () => {
  await silence(9);
  expect(said).toEqual([]);
  await silence(1);
  expect(said).toEqual(["The engine process has not answered for 10 s; it was ended."]);
  await silence(20);
  expect(said).toHaveLength(1);
});

test("silence counts from the last beat", async () => {
  await hear(30, () => null);
  await silence(9);
  expect(said).toEqual([]);
  await silence(1);
  expect(said).toEqual([expect.stringContaining("not answered")]);
});

test("an engine that computes without getting on is given up although its process answers", async () => {
  await hear(5, () => beat);
  expect(said).toEqual([]);
  await hear(8, () => beat);
  expect(said).toEqual(["The engine has computed for 10 s without getting on; its process was ended."]);
});

test("however long a step takes, an engine that gets on is left alone, and so is one that has nothing to do", async () => {
  await hear(60, (second) => ({ ...beat, progress: second }));
  await hear(60, () => ({ ...beat, computing: false }));
  expect(said).toEqual([]);
});

test("a short step between two looks at long ones is a sign of life", async () => {
  await hear(8, () => beat);
  await hear(1, () => ({ ...beat, progress: 101 }));
  await hear(8, () => ({ ...beat, progress: 101 }));
  expect(said).toEqual([]);
});

test("looks count and not time: for a worker that was stopped itself the leap is one look", async () => {
  const sleeps: (() => void)[] = [];
  const leaping = { sleep: () => new Promise<void>((resolve) => void sleeps.push(resolve)) };
  void new Watchdog({ clock: leaping, stall_ms: 10, onStall: (message) => said.push(message) }).watch();
  for (let look = 0; look < 9; look++) {
    sleeps.shift()?.();
    await settle();
  }
  expect(said).toEqual([]);
  sleeps.shift()?.();
  await settle();
  expect(said).toHaveLength(1);
});

test("nobody is watched after the end", async () => {
  watchdog.end();
  await silence(30);
  expect(said).toEqual([]);
});
