import { expect, test } from "bun:test";
import fc from "fast-check";
import { checkProperty } from "../../test/support/property.ts";
import { LineSplitter } from "./ndjson.ts";

test("lines come back whole however the bytes were cut, inside characters too", () => {
  const line = fc.string({ unit: "grapheme", minLength: 1 }).filter((s) => !s.includes("\n"));
  const input = fc.record({
    lines: fc.array(line, { maxLength: 20 }),
    cuts: fc.array(fc.nat(200), { maxLength: 30 }),
  });
  checkProperty(input, ({ lines, cuts }) => {
    const bytes = new TextEncoder().encode(lines.map((line) => `${line}\n`).join(""));
    const splitter = new LineSplitter();
    const found: string[] = [];
    let start = 0;
    for (const cut of [...cuts.sort((a, b) => a - b), bytes.length]) {
      const end = Math.min(Math.max(cut, start), bytes.length);
      found.push(...splitter.push(bytes.subarray(start, end)));
      start = end;
    }
    expect(found).toEqual(lines);
    expect(splitter.flush()).toBe("");
  });
});

test("what follows the last line end is given back by flush", () => {
  const splitter = new LineSplitter();
  expect(splitter.push(new TextEncoder().encode("a\nb"))).toEqual(["a"]);
  expect(splitter.flush()).toBe("b");
});

test("a line beyond the bound is refused, also when it comes in pieces", () => {
  const splitter = new LineSplitter(8);
  splitter.push(new TextEncoder().encode("12345"));
  expect(() => splitter.push(new TextEncoder().encode("6789"))).toThrow("exceeds 8");
});
