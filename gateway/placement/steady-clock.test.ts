/** Wall time that does not follow the wall clock. */
import { expect, test } from "bun:test";
import { MachineClock, ManualClock } from "../../test/support/manual-clock.ts";
import { steadyClock } from "./steady-clock.ts";

test("it begins as the wall clock and goes on with the time, wherever the wall clock jumps", async () => {
  const time = new ManualClock();
  const machine = new MachineClock(time, 1_000_000);
  await time.advance(500);
  const clock = steadyClock(machine);
  expect(clock.wallMs()).toBe(1_000_500);
  machine.jump(-900_000);
  expect(clock.wallMs()).toBe(1_000_500);
  await time.advance(250);
  expect(clock.wallMs()).toBe(1_000_750);
  machine.jump(5_000_000);
  expect(clock.wallMs()).toBe(1_000_750);
});
