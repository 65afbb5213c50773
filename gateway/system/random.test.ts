import { expect, test } from "bun:test";
import { toHex } from "../../schema/ids.ts";
import { systemRandom } from "./random.ts";

test("every draw has the bytes that were asked for, and none was drawn before", () => {
  const seen = new Set<string>();
  for (let i = 0; i < 2_000; i++) {
    const bytes = systemRandom.bytes(12 + (i % 9));
    expect(bytes.length).toBe(12 + (i % 9));
    seen.add(toHex(bytes).slice(0, 24));
  }
  expect(seen.size).toBe(2_000);
  expect(seen.has("0".repeat(24))).toBe(false);
});

test("what was drawn stays as it is, and is its owner's to change", () => {
  const first = systemRandom.bytes(16);
  const text = toHex(first);
  const second = systemRandom.bytes(16);
  expect(toHex(first)).toBe(text);
  const other = toHex(second);
  first.fill(7);
  expect(toHex(second)).toBe(other);
});

test("more than one draw holds is refused", () => {
  expect(() => systemRandom.bytes(4_097)).toThrow(RangeError);
});
