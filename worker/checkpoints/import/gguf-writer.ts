/**
 * Writes the one merged GGUF header of a checkpoint. The same metadata and tensors give the same bytes, in whatever
 * order and files they came: pairs are sorted by key, tensors stand in canonical order without gaps.
 */
import { SllmError } from "../../../schema/error.ts";
import { limits } from "../../../schema/limits.ts";
import type { GgufPair, GgufTensor } from "./gguf-reader.ts";
import { valueType } from "./gguf-types.ts";

export interface PlacedTensor<T extends GgufTensor = GgufTensor> {
  readonly tensor: T;
  /** Byte offset in weights.bin, and from the end of the header in a GGUF file. */
  readonly offset: number;
}

export interface MergedHeader<T extends GgufTensor = GgufTensor> {
  /** The header, padded so that data could begin right behind it. */
  readonly bytes: Uint8Array;
  readonly placed: readonly PlacedTensor<T>[];
  /** Size of weights.bin: all tensors with their padding, and the file's own. */
  readonly weights_bytes: number;
}

const ggufVersion = 3;
const utf8 = new TextEncoder();

/** `value` up to the next multiple of `alignment`. */
export function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}

/** Header for tensors that lie one behind the other in the order given. Errors: `checkpoint_unsupported`. */
export function mergeHeader<T extends GgufTensor>(
  pairs: readonly GgufPair[],
  tensors: readonly T[],
): MergedHeader<T> {
  const { placed, end } = placeTensors(tensors);
  const kept = canonicalPairs(pairs);
  const writer = new HeaderWriter(headerBytes(kept, tensors));
  writer.u32(0x46554747);
  writer.u32(ggufVersion);
  writer.u64(tensors.length);
  writer.u64(kept.length);
  for (const pair of kept) {
    writer.text(pair.key);
    writer.u32(pair.type);
    writer.raw(pair.raw);
  }
  for (const { tensor, offset } of placed) {
    writer.text(tensor.name);
    writer.u32(tensor.shape.length);
    for (const extent of tensor.shape) writer.u64(extent);
    writer.u32(tensor.type.id);
    writer.u64(offset);
  }
  return { bytes: writer.bytes, placed, weights_bytes: alignUp(end, limits.file_align_bytes) };
}

function placeTensors<T extends GgufTensor>(tensors: readonly T[]) {
  const placed: PlacedTensor<T>[] = [];
  let end = 0;
  for (const tensor of tensors) {
    placed.push({ tensor, offset: end });
    end = alignUp(end + tensor.bytes, limits.tensor_align_bytes);
    if (end > limits.weights_bytes) {
      throw new SllmError("checkpoint_unsupported", `The weights exceed ${limits.weights_bytes} bytes.`);
    }
  }
  return { placed, end };
}

/** Without the splitting and alignment of the source, with our alignment, sorted by the bytes of the key. */
function canonicalPairs(pairs: readonly GgufPair[]): GgufPair[] {
  const alignment = new Uint8Array(4);
  new DataView(alignment.buffer).setUint32(0, limits.tensor_align_bytes, true);
  const kept = pairs.filter((pair) => pair.key !== "general.alignment" && !pair.key.startsWith("split."));
  kept.push({ key: "general.alignment", type: valueType.uint32, raw: alignment });
  return kept.sort((a, b) => Buffer.compare(Buffer.from(a.key), Buffer.from(b.key)));
}

function headerBytes(pairs: readonly GgufPair[], tensors: readonly GgufTensor[]): number {
  let bytes = 24;
  for (const pair of pairs) bytes += 8 + Buffer.byteLength(pair.key) + 4 + pair.raw.length;
  for (const { name, shape } of tensors) bytes += 8 + Buffer.byteLength(name) + 4 + 8 * shape.length + 12;
  const padded = alignUp(bytes, limits.tensor_align_bytes);
  if (padded > limits.gguf_header_bytes) {
    throw new SllmError("checkpoint_unsupported", `The header exceeds ${limits.gguf_header_bytes} bytes.`);
  }
  return padded;
}

/** Little-endian fields into a buffer of known size; what is not written stays zero. */
class HeaderWriter {
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(size: number) {
    this.bytes = new Uint8Array(size);
    this.#view = new DataView(this.bytes.buffer);
  }

  u32(value: number): void {
    this.#view.setUint32(this.#at, value, true);
    this.#at += 4;
  }

  u64(value: number): void {
    this.#view.setBigUint64(this.#at, BigInt(value), true);
    this.#at += 8;
  }

  raw(bytes: Uint8Array): void {
    this.bytes.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  text(text: string): void {
    const bytes = utf8.encode(text);
    this.u64(bytes.length);
    this.raw(bytes);
  }
}
