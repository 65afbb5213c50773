/** Typed access to the metadata of a GGUF header. A value of another type than asked for makes the file invalid. */
import { SllmError } from "../../../schema/error.ts";
import type { GgufPair } from "./gguf-reader.ts";
import { fixedValueBytes, valueType } from "./gguf-types.ts";
import { quoted } from "./header-cursor.ts";

const utf8 = new TextDecoder();

export class GgufMetadata {
  readonly #pairs: ReadonlyMap<string, GgufPair>;

  constructor(pairs: readonly GgufPair[]) {
    this.#pairs = new Map(pairs.map((pair) => [pair.key, pair]));
  }

  has(key: string): boolean {
    return this.#pairs.has(key);
  }

  /** Bytes of a string; null when the key is missing. */
  textBytes(key: string): Uint8Array | null {
    const pair = this.#pairs.get(key);
    if (pair === undefined) return null;
    if (pair.type !== valueType.string) throw mistyped(key, "a string");
    return pair.raw.subarray(8);
  }

  /** A string, with U+FFFD for what is not UTF-8; null when the key is missing. */
  text(key: string): string | null {
    const bytes = this.textBytes(key);
    return bytes === null ? null : utf8.decode(bytes);
  }

  /** A whole number from 0 to 2^53; null when the key is missing. */
  count(key: string): number | null {
    const pair = this.#pairs.get(key);
    if (pair === undefined) return null;
    return countAt(pair.raw, 0, pair.type, key);
  }

  /** A number of single precision, and of no other type; null when the key is missing. */
  float32(key: string): number | null {
    const pair = this.#pairs.get(key);
    if (pair === undefined) return null;
    if (pair.type !== valueType.float32) throw mistyped(key, "a 32-bit floating-point number");
    return viewOf(pair.raw).getFloat32(0, true);
  }

  /** A whole number, or an array of them with one per layer; null when the key is missing. */
  counts(key: string, bound: number): number | readonly number[] | null {
    const pair = this.#pairs.get(key);
    if (pair === undefined) return null;
    if (pair.type !== valueType.array) return this.count(key);
    const { type, length } = arrayHead(pair);
    const size = fixedValueBytes(type);
    if (size === null || length > bound) throw mistyped(key, `an array of at most ${bound} numbers`);
    return Array.from({ length }, (_, i) => countAt(pair.raw, 12 + i * size, type, key));
  }

  /** Elements of an array; null when the key is missing. */
  arrayLength(key: string): number | null {
    const pair = this.#pairs.get(key);
    if (pair === undefined) return null;
    if (pair.type !== valueType.array) throw mistyped(key, "an array");
    return arrayHead(pair).length;
  }
}

function mistyped(key: string, wanted: string): SllmError {
  return new SllmError("checkpoint_invalid", `The metadata value ${quoted(key)} is not ${wanted}.`);
}

function viewOf(raw: Uint8Array): DataView {
  return new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
}

function arrayHead(pair: GgufPair): { type: number; length: number } {
  const view = viewOf(pair.raw);
  return { type: view.getUint32(0, true), length: Number(view.getBigUint64(4, true)) };
}

function countAt(raw: Uint8Array, offset: number, type: number, key: string): number {
  const value = integerAt(viewOf(raw), offset, type);
  if (value === null || value < 0 || value > Number.MAX_SAFE_INTEGER) throw mistyped(key, "a whole number");
  return value;
}

function integerAt(view: DataView, offset: number, type: number): number | null {
  switch (type) {
    case valueType.uint8:
      return view.getUint8(offset);
    case valueType.int8:
      return view.getInt8(offset);
    case valueType.uint16:
      return view.getUint16(offset, true);
    case valueType.int16:
      return view.getInt16(offset, true);
    case valueType.uint32:
      return view.getUint32(offset, true);
    case valueType.int32:
      return view.getInt32(offset, true);
    case valueType.uint64:
      return Number(view.getBigUint64(offset, true));
    case valueType.int64:
      return Number(view.getBigInt64(offset, true));
    default:
      return null;
  }
}
