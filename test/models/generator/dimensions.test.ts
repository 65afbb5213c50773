/** The choice of dimensions for random models. */
import { describe, expect, test } from "bun:test";
import { tensorsOf } from "./architectures.ts";
import { chooseDimensions, weightBytes } from "./dimensions.ts";

const wish = { architecture: "gemma3", type: "f16", vocabulary: 1024, context: 4096, tied: false } as const;

describe("a wanted number of layers", () => {
  test("is kept, and the width follows the size", () => {
    const chosen = chooseDimensions({ ...wish, size_bytes: 0.57e9, layers: 512 });
    expect(chosen.layers).toBe(512);
    expect(chosen.embedding).toBe(256);
    expect(Math.abs(weightBytes(chosen, "f16") / 0.57e9 - 1)).toBeLessThan(0.05);
    expect(tensorsOf(chosen)).toHaveLength(512 * 13 + 2);
  });

  test("is free when nobody wants one", () => {
    expect(chooseDimensions({ ...wish, size_bytes: 0.57e9 }).layers).toBeLessThan(100);
  });
});
