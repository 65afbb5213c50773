/** GGUF files in memory for tests: small valid ones, pieces to build broken ones from, and sources that count reads. */
import { SllmError } from "../../schema/error.ts";
import type { ByteSource } from "../../worker/checkpoints/import/byte-source.ts";
import { encodeHeader, type GgufFileTensor, type MetadataPair } from "../models/generator/gguf-file.ts";

/** A source in memory that knows how many bytes were read from it, and can claim to be longer than it is. */
export class MemorySource implements ByteSource {
  readonly name = "memory.gguf";
  readonly bytes: number;
  bytes_read = 0;
  readonly #content: Uint8Array;

  constructor(content: Uint8Array, claimedBytes = content.length) {
    this.#content = content;
    this.bytes = claimedBytes;
  }

  /** Behind the content, up to the claimed size, everything is zero, as in a sparse file. */
  async read(offset: number, into: Uint8Array): Promise<void> {
    this.bytes_read += into.length;
    if (offset + into.length > this.bytes) {
      throw new SllmError("checkpoint_invalid", `memory.gguf: the file ends at byte ${this.bytes}.`);
    }
    into.fill(0);
    into.set(this.#content.subarray(offset, Math.min(this.#content.length, offset + into.length)));
  }
}

/** A tensor of type F32 filled with one value. */
export function floatTensor(name: string, shape: readonly number[], value = 1): GgufFileTensor {
  const elements = shape.reduce((a, b) => a * b, 1);
  const bytes = new Uint8Array(new Float32Array(elements).fill(value).buffer);
  return { name, shape, type: 0, bytes: bytes.length, data: () => [bytes] };
}

/** Metadata that the importer needs of a llama model with one layer. */
export const leastMetadata: readonly MetadataPair[] = [
  ["general.architecture", "string", "llama"],
  ["general.name", "string", "least"],
  ["llama.block_count", "uint32", 1],
  ["llama.embedding_length", "uint32", 64],
  ["llama.context_length", "uint32", 128],
  ["llama.attention.head_count", "uint32", 4],
  ["llama.attention.head_count_kv", "uint32", 2],
  ["tokenizer.ggml.tokens", "strings", ["<unk>", "a", "b"]],
];

export const leastTensors: readonly GgufFileTensor[] = [
  floatTensor("token_embd.weight", [64, 3], 1),
  floatTensor("blk.0.attn_norm.weight", [65], 2),
  floatTensor("output_norm.weight", [64], 3),
];

/** A whole file: header and data. */
export function encodeFile(
  pairs: readonly MetadataPair[] = leastMetadata,
  tensors: readonly GgufFileTensor[] = leastTensors,
): Uint8Array {
  const parts: Uint8Array[] = [encodeHeader(pairs, tensors)];
  for (const tensor of tensors) {
    parts.push(...tensor.data(), new Uint8Array(-tensor.bytes & 31));
  }
  return Buffer.concat(parts);
}

/** Little-endian pieces of a header, for tests that build broken ones by hand. */
export const piece = {
  ascii: (text: string) => new TextEncoder().encode(text),
  u32: (value: number) => new Uint8Array(new Uint32Array([value]).buffer),
  u64: (value: number | bigint) => new Uint8Array(new BigUint64Array([BigInt(value)]).buffer),
  text: (text: string): Uint8Array => Buffer.concat([piece.u64(Buffer.byteLength(text)), piece.ascii(text)]),
  /** Magic, version and counts. */
  start: (tensors: number | bigint, pairs: number | bigint, version = 3): Uint8Array =>
    Buffer.concat([piece.ascii("GGUF"), piece.u32(version), piece.u64(tensors), piece.u64(pairs)]),
} as const;
