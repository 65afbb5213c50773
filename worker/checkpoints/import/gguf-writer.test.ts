import { describe, expect, test } from "bun:test";
import { limits } from "../../../schema/limits.ts";
import { encodeFile, leastMetadata, leastTensors, MemorySource } from "../../../test/support/gguf.ts";
import { readGguf } from "./gguf-reader.ts";
import { alignUp, mergeHeader } from "./gguf-writer.ts";

const source = await readGguf(new MemorySource(encodeFile()));

describe("a merged header", () => {
  test("reads back with the pairs sorted, the alignment set and the tensors in the order given", async () => {
    const reversed = source.tensors.toReversed();
    const merged = mergeHeader(source.pairs, reversed);
    const back = await readGguf(new MemorySource(merged.bytes, merged.bytes.length + merged.weights_bytes));
    const keys = back.pairs.map((pair) => pair.key);
    expect(keys).toEqual(keys.toSorted());
    expect(keys).toHaveLength(source.pairs.length + 1);
    for (const pair of source.pairs) expect(back.pairs).toContainEqual(pair);
    const alignment = back.pairs.find((pair) => pair.key === "general.alignment");
    expect(alignment).toEqual({ key: "general.alignment", type: 4, raw: new Uint8Array([128, 0, 0, 0]) });
    expect(back.tensors.map((tensor) => tensor.name)).toEqual(reversed.map((tensor) => tensor.name));
  });

  test("places tensors one behind the other at multiples of 128, right behind the header", async () => {
    const merged = mergeHeader(source.pairs, source.tensors);
    expect(merged.placed.map((place) => place.offset)).toEqual([0, 768, 768 + 384]);
    expect(merged.weights_bytes).toBe(4096);
    expect(merged.bytes.length % 128).toBe(0);
    const back = await readGguf(new MemorySource(merged.bytes, merged.bytes.length + merged.weights_bytes));
    expect(back.tensors.map((tensor) => tensor.file_offset - merged.bytes.length)).toEqual([0, 768, 1152]);
  });

  test("is the same for any order of pairs, any alignment and any splitting of the source", async () => {
    const metadata = leastMetadata.toReversed();
    const other = encodeFile(
      [
        ["general.alignment", "uint32", 32],
        ...metadata,
        ["split.count", "uint16", 1],
        ["split.no", "uint16", 0],
      ],
      leastTensors,
    );
    const { pairs } = await readGguf(new MemorySource(other));
    expect(mergeHeader(pairs, source.tensors).bytes).toEqual(mergeHeader(source.pairs, source.tensors).bytes);
  });

  test("refuses weights beyond the limit", () => {
    const [tensor] = source.tensors;
    if (tensor === undefined) throw new Error("no tensors");
    const huge = { ...tensor, bytes: limits.weights_bytes };
    expect(() => mergeHeader(source.pairs, [huge, { ...tensor, name: "b" }])).toThrow("weights exceed");
  });
});

test.each([
  [0, 0],
  [1, 128],
  [128, 128],
  [129, 256],
])("%p rounds up to %p", (value, expected) => {
  expect(alignUp(value, 128)).toBe(expected);
});
