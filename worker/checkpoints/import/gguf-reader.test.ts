import { describe, expect, test } from "bun:test";
import { SllmError } from "../../../schema/error.ts";
import { limits } from "../../../schema/limits.ts";
import { encodeHeader } from "../../../test/models/generator/gguf-file.ts";
import { encodeFile, leastMetadata, leastTensors, MemorySource, piece } from "../../../test/support/gguf.ts";
import { readGguf } from "./gguf-reader.ts";
import { HeaderCursor } from "./header-cursor.ts";

const { ascii, u32, u64, text, start } = piece;
const concat = (...parts: Uint8Array[]): Uint8Array => Buffer.concat(parts);

async function refusal(content: Uint8Array, claimedBytes?: number): Promise<SllmError> {
  const thrown = await readGguf(new MemorySource(content, claimedBytes)).then(
    () => null,
    (error: unknown) => error,
  );
  if (!(thrown instanceof SllmError)) throw new Error(`expected a refusal, got ${thrown}`);
  return thrown;
}

describe("a valid header", () => {
  test("gives its pairs with raw values and its tensors with places in the file", async () => {
    const content = encodeFile();
    const header = await readGguf(new MemorySource(content));
    expect(header.version).toBe(3);
    expect(header.pairs.map((pair) => pair.key)).toEqual(leastMetadata.map(([key]) => key));
    expect(header.pairs[2]).toEqual({ key: "llama.block_count", type: 4, raw: u32(1) });
    expect(header.tensors.map((t) => [t.name, [...t.shape], t.bytes, t.type.name])).toEqual([
      ["token_embd.weight", [64, 3], 768, "F32"],
      ["blk.0.attn_norm.weight", [65], 260, "F32"],
      ["output_norm.weight", [64], 256, "F32"],
    ]);
    const places = header.tensors.map((tensor) =>
      new DataView(content.buffer).getFloat32(tensor.file_offset, true),
    );
    expect(places).toEqual([1, 2, 3]);
  });

  test("of version 2 reads the same", async () => {
    const content = encodeFile();
    content.set(u32(2), 4);
    expect((await readGguf(new MemorySource(content))).version).toBe(2);
  });

  test("is read without the data behind it", async () => {
    const content = encodeFile();
    const source = new MemorySource(content, 2 ** 40);
    await readGguf(source);
    expect(source.bytes_read).toBeLessThan(1024 * 1024);
  });

  test("may ask for its own alignment", async () => {
    const pairs = concat(text("general.alignment"), u32(4), u32(1024));
    const tensor = (name: string, offset: number) => concat(text(name), u32(1), u64(4), u32(0), u64(offset));
    const content = concat(start(2, 1), pairs, tensor("a", 0), tensor("b", 1024));
    const header = await readGguf(new MemorySource(content, 1024 * 3));
    expect(header.tensors.map((t) => t.file_offset)).toEqual([1024, 2048]);
  });

  test("may hold nested arrays and a tensor without dimensions", async () => {
    const inner = concat(u32(4), u64(2), u32(7), u32(8));
    const nested = concat(text("n"), u32(9), u32(9), u64(2), inner, inner);
    const content = concat(start(1, 1), nested, text("scalar"), u32(0), u32(0), u64(0));
    const header = await readGguf(new MemorySource(content, 4096));
    expect(header.pairs[0]?.raw.length).toBe(12 + 2 * 20);
    expect(header.tensors[0]).toMatchObject({ shape: [1], bytes: 4 });
  });
});

describe("a file that is cut off", () => {
  test("anywhere in its header or data is invalid", async () => {
    const content = encodeFile();
    for (let length = 0; length < content.length - 96; length++) {
      const error = await refusal(content.subarray(0, length));
      expect({ length, code: error.code }).toEqual({ length, code: "checkpoint_invalid" });
    }
  });

  test("is refused before memory is taken for what it promises", async () => {
    const promise = concat(start(0, 1), text("k"), u32(9), u32(10), u64(limits.gguf_array));
    const source = new MemorySource(promise);
    await expect(readGguf(source)).rejects.toThrow("the file is cut off");
    expect(source.bytes_read).toBeLessThan(1024);
  });
});

describe("a damaged or hostile header is refused:", () => {
  const key = text("k");
  const pair = (type: number, ...value: Uint8Array[]) => concat(start(0, 1), key, u32(type), ...value);
  const nested = (depth: number) =>
    concat(u32(9), ...Array.from({ length: depth }, () => concat(u32(9), u64(1))), u32(4), u64(0));
  const tensor = (...fields: Uint8Array[]) => concat(start(1, 0), ...fields);
  const shape = (...extents: (number | bigint)[]) =>
    concat(u32(extents.length), ...extents.map((e) => u64(e)));
  const alignment = (type: number, value: Uint8Array) =>
    concat(start(0, 1), text("general.alignment"), u32(type), value);

  const cases: [name: string, content: Uint8Array, code: string, at: number, problem: string][] = [
    ["another format", ascii("PK\u0003\u0004 zip"), "checkpoint_invalid", 0, "not a GGUF file"],
    ["version 1", start(0, 0, 1), "checkpoint_unsupported", 4, "version 1 is not supported"],
    ["version 4", start(0, 0, 4), "checkpoint_unsupported", 4, "version 4 is not supported"],
    ["version 0", start(0, 0, 0), "checkpoint_unsupported", 4, "version 0 is not supported"],
    ["big-endian", start(0, 0, 0x03000000), "checkpoint_unsupported", 4, "big-endian"],
    ["tensors beyond the limit", start(limits.tensors + 1, 0), "checkpoint_unsupported", 8, "more than"],
    ["2^63 tensors", start(1n << 63n, 0), "checkpoint_unsupported", 8, "more than"],
    ["pairs beyond the limit", start(0, limits.gguf_pairs + 1), "checkpoint_unsupported", 16, "more than"],
    ["2^64 - 1 pairs", start(0, 0xffff_ffff_ffff_ffffn), "checkpoint_unsupported", 16, "more than"],
    ["an empty key", concat(start(0, 1), u64(0), u32(4)), "checkpoint_invalid", 32, "is empty"],
    [
      "a key of 2^64 - 1 bytes",
      concat(start(0, 1), u64(0xffff_ffff_ffff_ffffn)),
      "checkpoint_invalid",
      24,
      "a length of",
    ],
    [
      "a key that is not UTF-8",
      concat(start(0, 1), u64(1), new Uint8Array([0xff])),
      "checkpoint_invalid",
      32,
      "UTF-8",
    ],
    ["a key with a zero byte", concat(start(0, 1), text("a\0b")), "checkpoint_invalid", 32, "zero byte"],
    [
      "a key that stands twice",
      concat(start(0, 2), key, u32(0), u8(), key),
      "checkpoint_invalid",
      38,
      "twice",
    ],
    ["an unknown value type", pair(13), "checkpoint_invalid", 37, "unknown type 13"],
    ["an array of an unknown type", pair(9, u32(99), u64(1)), "checkpoint_invalid", 49, "unknown type 99"],
    [
      "an array beyond the limit",
      pair(9, u32(0), u64(limits.gguf_array + 1)),
      "checkpoint_invalid",
      49,
      "elements",
    ],
    [
      "a string beyond the limit",
      pair(8, u64(limits.gguf_string_bytes + 1)),
      "checkpoint_invalid",
      37,
      "a length of",
    ],
    [
      "arrays that nest too deeply",
      concat(start(0, 1), key, nested(5)),
      "checkpoint_invalid",
      85,
      "too deeply",
    ],
    ["an alignment that is no uint32", alignment(0, u8()), "checkpoint_invalid", 53, "uint32"],
    ["an alignment of 0", alignment(4, u32(0)), "checkpoint_invalid", 53, "power of two"],
    ["an alignment of 48", alignment(4, u32(48)), "checkpoint_invalid", 53, "power of two"],
    ["an alignment of 2^31", alignment(4, u32(2 ** 31)), "checkpoint_invalid", 53, "power of two"],
    [
      "a name of 64 bytes",
      tensor(text("x".repeat(64)), shape(1)),
      "checkpoint_unsupported",
      24,
      "longer than 63",
    ],
    ["five dimensions", tensor(text("t"), u32(5)), "checkpoint_invalid", 33, "5 dimensions"],
    ["a dimension of 0", tensor(text("t"), shape(4, 0)), "checkpoint_invalid", 45, "dimension 1"],
    [
      "a negative dimension",
      tensor(text("t"), shape(-1n & 0xffff_ffff_ffff_ffffn)),
      "checkpoint_invalid",
      37,
      "dimension 0",
    ],
    [
      "dimensions whose product overflows",
      tensor(text("t"), shape(2 ** 33, 2 ** 33)),
      "checkpoint_invalid",
      45,
      "dimension 1",
    ],
    [
      "an unknown tensor type",
      tensor(text("t"), shape(4), u32(77), u64(0)),
      "checkpoint_unsupported",
      45,
      "unknown type 77",
    ],
    [
      "a withdrawn tensor type",
      tensor(text("t"), shape(4), u32(31), u64(0)),
      "checkpoint_unsupported",
      45,
      "unknown type 31",
    ],
    [
      "rows that split blocks",
      tensor(text("t"), shape(48), u32(8), u64(0)),
      "checkpoint_invalid",
      45,
      "whole blocks",
    ],
    [
      "an offset off the alignment",
      tensor(text("t"), shape(4), u32(0), u64(16)),
      "checkpoint_invalid",
      49,
      "multiple of 32",
    ],
    [
      "an offset of 2^64 - 32",
      tensor(text("t"), shape(4), u32(0), u64(0xffff_ffff_ffff_ffe0n)),
      "checkpoint_invalid",
      0,
      "cut off",
    ],
    [
      "data beyond the file",
      tensor(text("t"), shape(1024), u32(0), u64(0)),
      "checkpoint_invalid",
      64,
      "cut off",
    ],
  ];

  test.each(cases)("%s", async (_, content, code, at, problem) => {
    const padded = concat(content, new Uint8Array(Math.max(0, 128 - content.length)));
    const error = await refusal(padded, padded.length);
    expect(error.code).toBe(code as SllmError["code"]);
    expect(error.message).toContain(problem);
    expect(error.message).toContain(at === 0 ? "memory.gguf: at byte " : `memory.gguf: at byte ${at}: `);
  });

  test("two tensors of one name", async () => {
    const [first, ...rest] = leastTensors;
    if (first === undefined) throw new Error("no tensors");
    const error = await refusal(encodeFile(leastMetadata, [first, first, ...rest]));
    expect(error.message).toContain('the tensor "token_embd.weight" stands twice');
  });

  test("tensors that share bytes", async () => {
    const content = encodeFile();
    const header = encodeHeader(leastMetadata, leastTensors);
    const offset = Buffer.from(header).indexOf("output_norm.weight") + 18 + 4 + 8 + 4;
    content.set(u64(32), offset);
    const error = await refusal(content);
    expect(error.code).toBe("checkpoint_invalid");
    expect(error.message).toContain('the data of "output_norm.weight" overlaps that of "token_embd.weight"');
  });

  test("a header that goes on beyond the limit, before it is read", async () => {
    const source = new MemorySource(encodeFile(), 2 ** 40);
    const cursor = new HeaderCursor(source);
    cursor.skip(limits.gguf_header_bytes - 4);
    await expect(cursor.need(8)).rejects.toThrow(
      `the header is longer than ${limits.gguf_header_bytes} bytes`,
    );
    expect(source.bytes_read).toBe(0);
  });
});

function u8(): Uint8Array {
  return new Uint8Array(1);
}
