/** What running work has before it still, by its tokens. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { checkProperty } from "../../test/support/property.ts";
import { nominal_migration, nominalEstimates } from "./estimates.ts";
import { remainingPromptMs, remainingTokens } from "./remaining.ts";

describe("remaining tokens", () => {
  test("an answer is expected to have the usual length, and a longer one to go on by half of what it has", () => {
    expect(remainingTokens({ output_tokens: 0, most_tokens: 4_096 }, 100)).toBe(100);
    expect(remainingTokens({ output_tokens: 60, most_tokens: 4_096 }, 100)).toBe(40);
    expect(remainingTokens({ output_tokens: 400, most_tokens: 4_096 }, 100)).toBe(200);
  });

  test("no answer goes beyond its bound", () => {
    expect(remainingTokens({ output_tokens: 0, most_tokens: 16 }, 100)).toBe(16);
    expect(remainingTokens({ output_tokens: 400, most_tokens: 410 }, 100)).toBe(10);
    expect(remainingTokens({ output_tokens: 410, most_tokens: 410 }, 100)).toBe(0);
  });

  test("are never less than nothing nor more than the bound leaves, and a looser bound never makes them fewer", () => {
    const some = fc.record({
      output_tokens: fc.nat({ max: 10_000 }),
      more: fc.nat({ max: 10_000 }),
      usual: fc.double({ min: 0, max: 5_000, noNaN: true }),
    });
    checkProperty(some, ({ output_tokens, more, usual }) => {
      const left = remainingTokens({ output_tokens, most_tokens: output_tokens + more }, usual);
      expect(left).toBeGreaterThanOrEqual(0);
      expect(left).toBeLessThanOrEqual(more);
      const looser = remainingTokens({ output_tokens, most_tokens: output_tokens + more + 1 }, usual);
      expect(looser).toBeGreaterThanOrEqual(left);
    });
  });
});

test("a prompt is expected to take as long as prompts do, less what has passed, and nothing once there are tokens", () => {
  const model = nominalEstimates.model("m");
  const work = { prompt_tokens: 1_000, begun_ms: 5_000, output_tokens: 0, most_tokens: 100 };
  const whole_ms = 1_000 * nominal_migration.ms_per_token + nominal_migration.base_ms;
  expect(remainingPromptMs(work, "cuda", model, 5_000)).toBe(whole_ms);
  expect(remainingPromptMs(work, "cuda", model, 5_400)).toBe(whole_ms - 400);
  expect(remainingPromptMs(work, "cuda", model, 9_000)).toBe(0);
  expect(remainingPromptMs({ ...work, output_tokens: 1 }, "cuda", model, 5_000)).toBe(0);
});
