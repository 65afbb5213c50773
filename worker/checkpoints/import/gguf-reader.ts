/**
 * Parser of GGUF headers (versions 2 and 3, little-endian) from a source that may be damaged or hostile. Every
 * count, length, type, alignment and offset is checked; an error names the file, the byte and what is wrong there.
 */
import { limits } from "../../../schema/limits.ts";
import type { ByteSource } from "./byte-source.ts";
import { fixedValueBytes, type TensorType, tensorTypeById, valueType } from "./gguf-types.ts";
import { HeaderCursor, quoted } from "./header-cursor.ts";

export interface GgufPair {
  readonly key: string;
  /** Number of the value's type (gguf-types.ts). */
  readonly type: number;
  /** The value as it stands in the file, for arrays with element type and count. */
  readonly raw: Uint8Array;
}

export interface GgufTensor {
  readonly name: string;
  readonly type: TensorType;
  /** Elements per dimension, fastest first, one to four. */
  readonly shape: readonly number[];
  readonly elements: number;
  readonly bytes: number;
  /** Where the data begins in its file. */
  readonly file_offset: number;
}

export interface GgufHeader {
  readonly version: number;
  readonly pairs: readonly GgufPair[];
  readonly tensors: readonly GgufTensor[];
  /** Bytes of magic, metadata and tensor infos. */
  readonly header_bytes: number;
}

const magic = 0x46554747;
const defaultAlignment = 32;
/** Longest key the format allows. */
const keyBytes = 65_535;
/** Longest tensor name of the engine library, without its terminating zero. */
const tensorNameBytes = 63;
/** Least bytes of a pair and of a tensor info: a count beyond what fits the file is refused before the loop. */
const leastPairBytes = 8 + 1 + 4 + 1;
const leastTensorBytes = 8 + 1 + 4 + 4 + 8;
/** No type takes less than a bit per element. */
const mostElements = limits.weights_bytes * 8;

/** Byte order marks stay: names that differ in one are different names. */
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Reads the header of a GGUF file and checks that all its tensors lie inside the file and apart from each other.
 * Errors: `checkpoint_invalid` (damaged), `checkpoint_unsupported` (other versions, types or sizes), `io_error`.
 */
export async function readGguf(source: ByteSource): Promise<GgufHeader> {
  const cursor = new HeaderCursor(source);
  const { version, pairCount, tensorCount } = await readCounts(cursor);
  const places = await readPairs(cursor, pairCount);
  const alignment = alignmentOf(cursor, places);
  const infos = await readTensorInfos(cursor, tensorCount, alignment);
  const headerBytes = cursor.offset;
  const dataOffset = Math.ceil(headerBytes / alignment) * alignment;
  const tensors = infos.map(({ offset, ...info }) => ({ ...info, file_offset: dataOffset + offset }));
  checkExtents(cursor, tensors, source.bytes);
  const pairs = places.map(({ key, type, start, end }) => ({ key, type, raw: cursor.slice(start, end) }));
  return { version, pairs, tensors, header_bytes: headerBytes };
}

async function readCounts(cursor: HeaderCursor) {
  await cursor.need(4);
  if (cursor.u32() !== magic) throw cursor.invalid("this is not a GGUF file", 0);
  await cursor.need(4);
  const version = cursor.u32();
  if (version !== 0 && (version & 0xffff) === 0) throw cursor.unsupported("the file is big-endian", 4);
  if (version !== 2 && version !== 3) {
    throw cursor.unsupported(`GGUF version ${version} is not supported, only 2 and 3`, 4);
  }
  await cursor.need(16);
  const tensorCount = cursor.u64();
  const pairCount = cursor.u64();
  if (tensorCount > limits.tensors) {
    throw cursor.unsupported(`${tensorCount} tensors are more than ${limits.tensors}`, 8);
  }
  if (pairCount > limits.gguf_pairs) {
    throw cursor.unsupported(`${pairCount} metadata pairs are more than ${limits.gguf_pairs}`, 16);
  }
  cursor.require(pairCount * leastPairBytes + tensorCount * leastTensorBytes);
  return { version, pairCount, tensorCount };
}

interface PairPlace {
  readonly key: string;
  readonly type: number;
  readonly start: number;
  readonly end: number;
}

async function readPairs(cursor: HeaderCursor, count: number): Promise<PairPlace[]> {
  const places: PairPlace[] = [];
  const seen = new Set<string>();
  for (let i = 0; i < count; i++) {
    const keyOffset = cursor.offset;
    const key = await readName(cursor, keyBytes, `the key of pair ${i}`);
    if (seen.has(key)) throw cursor.invalid(`the key ${quoted(key)} stands twice`, keyOffset);
    seen.add(key);
    await cursor.need(4);
    const type = cursor.u32();
    const start = cursor.offset;
    await skipValue(cursor, type, 0, key);
    places.push({ key, type, start, end: cursor.offset });
  }
  return places;
}

/** A key or tensor name: not empty, valid UTF-8 and without zeros, since C reads it. */
async function readName(cursor: HeaderCursor, bound: number, what: string): Promise<string> {
  const length = await cursor.stringLength(bound, what);
  if (length === 0) throw cursor.invalid(`${what} is empty`);
  await cursor.need(length);
  const bytes = cursor.slice(cursor.offset, cursor.offset + length);
  let name: string;
  try {
    name = utf8.decode(bytes);
  } catch {
    // The decoder's own message says no more than this.
    throw cursor.invalid(`${what} is not UTF-8`);
  }
  if (name.includes("\0")) throw cursor.invalid(`${what} contains a zero byte`);
  cursor.skip(length);
  return name;
}

async function skipValue(cursor: HeaderCursor, type: number, depth: number, key: string): Promise<void> {
  const fixed = fixedValueBytes(type);
  if (fixed !== null) {
    await cursor.need(fixed);
    cursor.skip(fixed);
  } else if (type === valueType.string) {
    await skipStrings(cursor, 1, key);
  } else if (type === valueType.array) {
    await skipArray(cursor, depth + 1, key);
  } else {
    throw cursor.invalid(`the value of ${quoted(key)} has the unknown type ${type}`);
  }
}

async function skipArray(cursor: HeaderCursor, depth: number, key: string): Promise<void> {
  if (depth > limits.gguf_array_depth) throw cursor.invalid(`the arrays of ${quoted(key)} nest too deeply`);
  await cursor.need(12);
  const type = cursor.u32();
  const count = cursor.u64();
  if (count > limits.gguf_array) {
    throw cursor.invalid(`the array ${quoted(key)} has ${count} elements, more than ${limits.gguf_array}`);
  }
  const fixed = fixedValueBytes(type);
  if (fixed !== null) {
    await cursor.need(count * fixed);
    cursor.skip(count * fixed);
  } else if (type === valueType.string) {
    await skipStrings(cursor, count, key);
  } else if (type === valueType.array) {
    cursor.require(count * 12);
    for (let i = 0; i < count; i++) await skipArray(cursor, depth + 1, key);
  } else {
    throw cursor.invalid(`the array ${quoted(key)} has elements of the unknown type ${type}`);
  }
}

async function skipStrings(cursor: HeaderCursor, count: number, key: string): Promise<void> {
  cursor.require(count * 8);
  for (let i = 0; i < count; i++) {
    const length = await cursor.stringLength(limits.gguf_string_bytes, `a string of ${quoted(key)}`);
    await cursor.need(length);
    cursor.skip(length);
  }
}

function alignmentOf(cursor: HeaderCursor, places: readonly PairPlace[]): number {
  const place = places.find((p) => p.key === "general.alignment");
  if (place === undefined) return defaultAlignment;
  if (place.type !== valueType.uint32) {
    throw cursor.invalid("general.alignment is not of type uint32", place.start);
  }
  const raw = cursor.slice(place.start, place.end);
  const alignment = new DataView(raw.buffer, raw.byteOffset).getUint32(0, true);
  const powerOfTwo = alignment !== 0 && (alignment & (alignment - 1)) === 0;
  if (!powerOfTwo || alignment > limits.gguf_alignment_bytes) {
    const problem = `general.alignment is ${alignment}, not a power of two up to ${limits.gguf_alignment_bytes}`;
    throw cursor.invalid(problem, place.start);
  }
  return alignment;
}

type TensorInfo = Omit<GgufTensor, "file_offset"> & { readonly offset: number };

async function readTensorInfos(cursor: HeaderCursor, count: number, alignment: number) {
  const infos: TensorInfo[] = [];
  const seen = new Set<string>();
  for (let i = 0; i < count; i++) {
    const nameOffset = cursor.offset;
    const name = await readName(cursor, keyBytes, `the name of tensor ${i}`);
    if (Buffer.byteLength(name) > tensorNameBytes) {
      throw cursor.unsupported(
        `the tensor name ${quoted(name)} is longer than ${tensorNameBytes}`,
        nameOffset,
      );
    }
    if (seen.has(name)) throw cursor.invalid(`the tensor ${quoted(name)} stands twice`, nameOffset);
    seen.add(name);
    infos.push(await readTensorInfo(cursor, name, alignment));
  }
  return infos;
}

async function readTensorInfo(cursor: HeaderCursor, name: string, alignment: number): Promise<TensorInfo> {
  const { shape, elements } = await readShape(cursor, name);
  await cursor.need(12);
  const typeOffset = cursor.offset;
  const typeId = cursor.u32();
  const type = tensorTypeById(typeId);
  if (type === null) {
    throw cursor.unsupported(`the tensor ${quoted(name)} has the unknown type ${typeId}`, typeOffset);
  }
  if ((shape[0] ?? 0) % type.block_elements !== 0) {
    const problem = `rows of ${shape[0]} elements do not hold whole blocks of ${type.name}`;
    throw cursor.invalid(`the tensor ${quoted(name)}: ${problem}`, typeOffset);
  }
  const bytes = (elements / type.block_elements) * type.block_bytes;
  if (bytes > limits.weights_bytes) {
    throw cursor.unsupported(`the tensor ${quoted(name)} has ${bytes} bytes`, typeOffset);
  }
  const offset = cursor.u64();
  if (offset % alignment !== 0) {
    const problem = `the offset of ${quoted(name)} is not a multiple of ${alignment}`;
    throw cursor.invalid(problem, cursor.offset - 8);
  }
  return { name, type, shape, elements, bytes, offset };
}

async function readShape(cursor: HeaderCursor, name: string) {
  await cursor.need(4);
  const dimensionsOffset = cursor.offset;
  const dimensions = cursor.u32();
  if (dimensions > 4) {
    throw cursor.invalid(`the tensor ${quoted(name)} has ${dimensions} dimensions`, dimensionsOffset);
  }
  await cursor.need(8 * dimensions);
  const shape: number[] = [];
  let elements = 1;
  for (let i = 0; i < dimensions; i++) {
    const extent = cursor.u64();
    elements *= extent;
    if (extent === 0 || elements > mostElements) {
      throw cursor.invalid(`dimension ${i} of ${quoted(name)} is ${extent}`, cursor.offset - 8);
    }
    shape.push(extent);
  }
  if (dimensions === 0) shape.push(1);
  return { shape, elements };
}

/** All data lies inside the file and no two tensors share a byte. */
function checkExtents(cursor: HeaderCursor, tensors: readonly GgufTensor[], fileBytes: number): void {
  let end = 0;
  let before = "";
  for (const tensor of tensors.toSorted((a, b) => a.file_offset - b.file_offset)) {
    if (tensor.file_offset < end) {
      throw cursor.invalid(
        `the data of ${quoted(tensor.name)} overlaps that of ${quoted(before)}`,
        tensor.file_offset,
      );
    }
    end = tensor.file_offset + tensor.bytes;
    before = tensor.name;
    if (end > fileBytes) {
      const problem = `the file is cut off: the data of ${quoted(tensor.name)} ends at byte ${end}`;
      throw cursor.invalid(`${problem}, the file at ${fileBytes}`, tensor.file_offset);
    }
  }
}
