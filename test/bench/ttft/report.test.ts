/** From rounds to figures: ratios within a round, and what a start costs beyond the computing. */
import { describe, expect, test } from "bun:test";
import type { Measured, Round } from "./measure.ts";
import { reportTtft, ttftGoals, ttftText } from "./report.ts";

const facts = { model: "random-4gb", weights_bytes: 4e9, kv_bytes: 2 ** 20 };

function measured(rounds: readonly Round[], grown = 11 * 2 ** 20): Measured {
  const before = { private_bytes: 100 * 2 ** 20, arena_bytes: 0 };
  return {
    rounds,
    memory: { before, after: { private_bytes: before.private_bytes + grown, arena_bytes: 4e9 } },
  };
}

const fast: Round = {
  ours: { disk: 150, host: 60, parked: 55, warm: 50 },
  router: { disk: 450, host: 150, warm: 50 },
  ceiling_ms: 100,
};
/** The whole machine is four times slower. */
const slow: Round = {
  ours: { disk: 600, host: 240, parked: 220, warm: 200 },
  router: { disk: 1800, host: 600, warm: 200 },
  ceiling_ms: 400,
};

describe("first tokens against the router", () => {
  const report = reportTtft(facts, measured([fast, slow]));

  test("are compared within a round", () => {
    expect(report.times_as_fast).toMatchObject({ disk: 3, host: 2.5, warm: 1 });
    expect(report.times_as_fast?.parked).toBeCloseTo(150 / 55);
    expect(report.disk_to_ceiling).toBe(1.5);
  });

  test("are compared without the computing too, which both have to do", () => {
    expect(report.start_times_as_fast).toEqual({ disk: 4, host: 10, parked: 20 });
  });

  test("have goals for the tokens as a client sees them", () => {
    expect(ttftGoals([report]).map(({ met }) => met)).toEqual([true, false, false, true]);
  });

  test("are printed with the ratios", () => {
    expect(ttftText(report)).toContain("2.50 times as fast (10.00 without the computing)");
  });
});

test("without the router there are our own figures and no ratio", () => {
  const report = reportTtft(facts, measured([{ ...fast, router: null }]));
  expect(report).toMatchObject({ router_ttft_ms: null, times_as_fast: null, start_times_as_fast: null });
  expect(report.ttft_ms.disk.median).toBe(150);
  expect(ttftGoals([report]).map(({ met }) => met)).toEqual([null, null, null, true]);
});

test("memory counts beyond arena and KV cache", () => {
  const most = reportTtft(facts, measured([fast], 66 * 2 ** 20));
  expect(ttftGoals([most]).at(-1)).toMatchObject({ figure: 65, met: false });
});
