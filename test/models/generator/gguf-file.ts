/** A plain writer of GGUF files for tests, single or split; it shares no code with the importer it is to test. */
import { closeSync, openSync, writeSync } from "node:fs";

/** Key, type and value. `raw` values are bytes as they stand in a file, with their type's number. */
export type MetadataPair =
  | readonly [key: string, type: "string", value: string]
  | readonly [key: string, type: "uint16" | "uint32" | "int32" | "float32", value: number]
  | readonly [key: string, type: "bool", value: boolean]
  | readonly [key: string, type: "strings", value: readonly string[]]
  | readonly [key: string, type: "floats" | "ints", value: readonly number[]]
  | readonly [key: string, type: "raw", value: { readonly type: number; readonly bytes: Uint8Array }];

export interface GgufFileTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** Number of the GGML type. */
  readonly type: number;
  readonly bytes: number;
  /** The data, in pieces of any size. */
  data(): Iterable<Uint8Array>;
}

const alignment = 32;
const aligned = (bytes: number) => Math.ceil(bytes / alignment) * alignment;

/** The header of a GGUF file of version 3, padded to where the data begins. */
export function encodeHeader(pairs: readonly MetadataPair[], tensors: readonly GgufFileTensor[]): Uint8Array {
  const parts: Uint8Array[] = [ascii("GGUF"), u32(3), u64(tensors.length), u64(pairs.length)];
  for (const pair of pairs) parts.push(text(pair[0]), encodeValue(pair));
  let offset = 0;
  for (const { name, shape, type, bytes } of tensors) {
    parts.push(text(name), u32(shape.length), ...shape.map(u64), u32(type), u64(offset));
    offset += aligned(bytes);
  }
  const header = Buffer.concat(parts);
  return Buffer.concat([header, new Uint8Array(aligned(header.length) - header.length)]);
}

/** Writes header and data. Returns the size of the file. */
export function writeGgufFile(
  path: string,
  pairs: readonly MetadataPair[],
  tensors: readonly GgufFileTensor[],
): number {
  const file = openSync(path, "w");
  try {
    let written = writeAll(file, encodeHeader(pairs, tensors));
    for (const tensor of tensors) {
      for (const piece of tensor.data()) written += writeAll(file, piece);
      written += writeAll(file, new Uint8Array(aligned(tensor.bytes) - tensor.bytes));
    }
    return written;
  } finally {
    closeSync(file);
  }
}

/** Writes a model in parts named `<name>-00001-of-0000N.gguf`. Returns their paths. */
export function writeSplitGguf(
  path: string,
  pairs: readonly MetadataPair[],
  tensors: readonly GgufFileTensor[],
  count: number,
): string[] {
  const five = (n: number) => String(n).padStart(5, "0");
  const perPart = Math.ceil(tensors.length / count);
  return Array.from({ length: count }, (_, i) => {
    const partPath = path.replace(/\.gguf$/, `-${five(i + 1)}-of-${five(count)}.gguf`);
    const split: MetadataPair[] = [
      ["split.no", "uint16", i],
      ["split.count", "uint16", count],
      ["split.tensors.count", "int32", tensors.length],
    ];
    const part = tensors.slice(i * perPart, (i + 1) * perPart);
    writeGgufFile(partPath, i === 0 ? [...pairs, ...split] : split, part);
    return partPath;
  });
}

function writeAll(file: number, bytes: Uint8Array): number {
  let done = 0;
  while (done < bytes.length) done += writeSync(file, bytes, done);
  return done;
}

function encodeValue(pair: MetadataPair): Uint8Array {
  const [, type, value] = pair;
  switch (type) {
    case "string":
      return Buffer.concat([u32(8), text(value)]);
    case "uint16":
      return Buffer.concat([u32(2), new Uint8Array(new Uint16Array([value]).buffer)]);
    case "uint32":
      return Buffer.concat([u32(4), u32(value)]);
    case "int32":
      return Buffer.concat([u32(5), u32(value)]);
    case "float32":
      return Buffer.concat([u32(6), f32(value)]);
    case "bool":
      return Buffer.concat([u32(7), new Uint8Array([value ? 1 : 0])]);
    case "strings":
      return Buffer.concat([u32(9), u32(8), u64(value.length), ...value.map(text)]);
    case "floats":
      return Buffer.concat([u32(9), u32(6), u64(value.length), ...value.map(f32)]);
    case "ints":
      return Buffer.concat([u32(9), u32(5), u64(value.length), ...value.map(u32)]);
    case "raw":
      return Buffer.concat([u32(value.type), value.bytes]);
  }
}

const ascii = (value: string): Uint8Array => new TextEncoder().encode(value);
const u32 = (value: number): Uint8Array => new Uint8Array(new Uint32Array([value]).buffer);
const u64 = (value: number): Uint8Array => new Uint8Array(new BigUint64Array([BigInt(value)]).buffer);
const f32 = (value: number): Uint8Array => new Uint8Array(new Float32Array([value]).buffer);
const text = (value: string): Uint8Array => Buffer.concat([u64(ascii(value).length), ascii(value)]);
