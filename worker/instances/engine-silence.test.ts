import { beforeEach, expect, test } from "bun:test";
import { limits } from "../../schema/limits.ts";
import { ManualClock } from "../../test/support/manual-clock.ts";
import { EngineSilence } from "./engine-silence.ts";

let clock: ManualClock;
let isBusy: boolean;
let silences: number;
let silence: EngineSilence;

beforeEach(() => {
  clock = new ManualClock();
  isBusy = true;
  silences = 0;
  silence = new EngineSilence({
    clock,
    isBusy: () => isBusy,
    onSilent: () => {
      silences += 1;
    },
  });
  void silence.watch();
});

test("an engine that says nothing for the time while it has requests is noticed, once", async () => {
  silence.heard(true);
  await clock.advance(limits.engine_silence_ms - 1);
  expect(silences).toBe(0);
  await clock.advance(1);
  expect(silences).toBe(1);
  await clock.advance(10 * limits.engine_silence_ms);
  expect(silences).toBe(1);
  silence.heard(true);
  await clock.advance(limits.engine_silence_ms);
  expect(silences).toBe(2);
});

test("whatever it says counts, and without requests or before its first beat nothing is missed", async () => {
  await clock.advance(10 * limits.engine_silence_ms);
  silence.heard(true);
  for (let i = 0; i < 10; i++) {
    await clock.advance(limits.engine_silence_ms / 2);
    silence.heard(false);
  }
  isBusy = false;
  await clock.advance(10 * limits.engine_silence_ms);
  silence.end();
  isBusy = true;
  await clock.advance(10 * limits.engine_silence_ms);
  expect(silences).toBe(0);
  expect(clock.sleeping).toBe(0);
});
