import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { settle } from "../../test/support/manual-clock.ts";
import { checkAsyncProperty } from "../../test/support/property.ts";
import { VirtualClock } from "./virtual-clock.ts";

describe("virtual time", () => {
  test("everything happens at its time, and of the same time in the order it was asked for", async () => {
    await checkAsyncProperty(
      fc.array(fc.integer({ min: 0, max: 20 }), { maxLength: 60 }),
      async (times) => {
        const clock = new VirtualClock();
        const seen: (readonly [number, number])[] = [];
        for (const [order, at_ms] of times.entries()) {
          clock.at(at_ms, () => {
            expect(clock.wallMs()).toBe(at_ms);
            seen.push([at_ms, order]);
          });
        }
        await clock.run(settle);
        const wanted = times.map((at_ms, order) => [at_ms, order] as const);
        expect(seen).toEqual(wanted.toSorted((a, b) => a[0] - b[0] || a[1] - b[1]));
      },
      50,
    );
  });

  test("time does not go on before what follows from an event has happened", async () => {
    const clock = new VirtualClock();
    const seen: string[] = [];
    clock.at(10, () => void chain(20, () => seen.push(`chain at ${clock.wallMs()}`)));
    clock.at(11, () => seen.push("later"));
    await clock.run(settle);
    expect(seen).toEqual(["chain at 10", "later"]);
  });

  test("a sleep ends at its time or with its signal, and a cancelled event never happens", async () => {
    const clock = new VirtualClock();
    const leave = new AbortController();
    const ends: number[] = [];
    void clock.sleep(100).then(() => ends.push(clock.wallMs()));
    void clock.sleep(200, leave.signal).then(() => ends.push(clock.wallMs()));
    void clock.sleep(Number.POSITIVE_INFINITY, leave.signal).then(() => ends.push(clock.wallMs()));
    clock.at(50, () => leave.abort());
    const cancel = clock.at(60, () => ends.push(-1));
    cancel();
    await clock.run(settle);
    expect(ends).toEqual([50, 50, 100]);
  });
});

/** So many promises one after the other. */
async function chain(length: number, then: () => void): Promise<void> {
  for (let i = 0; i < length; i++) await null;
  then();
}
