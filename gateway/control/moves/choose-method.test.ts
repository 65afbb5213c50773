import { expect, test } from "bun:test";
import fc from "fast-check";
import { checkProperty } from "../../../test/support/property.ts";
import { chooseMethod, type MoveCosts, transferMs } from "./choose-method.ts";

const costs: MoveCosts = {
  tokens: 1_000,
  kv_bytes_per_token: 65_536,
  network_bytes_per_ms: 1_000_000,
  recompute_ms: 2_000,
};

test("a KV cache is sent where that is expected to be faster, and computed anew where the network is slow", () => {
  expect(transferMs(costs)).toBeCloseTo(65.5, 1);
  expect(chooseMethod(costs)).toBe("kv_transfer");
  expect(chooseMethod({ ...costs, network_bytes_per_ms: 10_000 })).toBe("recompute");
  expect(chooseMethod({ ...costs, recompute_ms: 50 })).toBe("recompute");
});

test("a model without a KV cache that could be sent is computed anew", () => {
  expect(chooseMethod({ ...costs, kv_bytes_per_token: 0 })).toBe("recompute");
});

test("with a(t_in+t_out)+b on one side there is one length at most from which on the other method wins", () => {
  const positive = fc.double({ min: 0.001, max: 1_000, noNaN: true });
  const cases = fc.record({
    slope: positive,
    base: positive,
    per_token: fc.integer({ min: 1, max: 1_000_000 }),
  });
  checkProperty(cases, ({ slope, base, per_token }) => {
    const methods = Array.from({ length: 60 }, (_, i) => {
      const tokens = Math.round(1.2 ** i);
      const recompute_ms = slope * tokens + base;
      return chooseMethod({ ...costs, kv_bytes_per_token: per_token, tokens, recompute_ms });
    });
    const changes = methods.filter((method, i) => i > 0 && method !== methods[i - 1]);
    expect(changes.length).toBeLessThanOrEqual(1);
  });
});
