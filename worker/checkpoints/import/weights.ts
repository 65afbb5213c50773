/**
 * Streams tensor data out of the source files chunk by chunk in the order of weights.bin and digests it on the way.
 * Some chunks are in flight at once, so reading, digesting and writing overlap; memory is their number of buffers.
 */
import { webcrypto } from "node:crypto";
import type { ChunkEntry } from "../../../schema/checkpoint/manifest.ts";
import { toHex } from "../../../schema/ids.ts";
import { limits } from "../../../schema/limits.ts";
import { checkCancelled } from "./cancelled.ts";
import type { SourceTensor } from "./gguf-splits.ts";
import type { PlacedTensor } from "./gguf-writer.ts";

/** Fast digest of bytes: XXH3 with 64 bits and seed 0. */
export type Xxh3 = (bytes: Uint8Array) => bigint;

/** Takes chunk `index` at `offset` of weights.bin. `bytes` belongs to the sink until its promise settles. */
export type ChunkSink = (
  index: number,
  offset: number,
  bytes: Uint8Array,
  entry: ChunkEntry,
) => Promise<void>;

export interface WeightsStream {
  readonly placed: readonly PlacedTensor<SourceTensor>[];
  readonly weights_bytes: number;
  readonly chunk_bytes: number;
  readonly xxh3: Xxh3;
  readonly sink: ChunkSink;
  readonly on_progress?: ((bytesDone: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Runs all chunks through the sink, in no particular order, and returns their digests in order. The first failure
 * stops it; it returns or throws only when nothing is in flight any more.
 */
export async function streamWeights(stream: WeightsStream): Promise<ChunkEntry[]> {
  const { weights_bytes, chunk_bytes } = stream;
  const entries = new Array<ChunkEntry>(Math.ceil(weights_bytes / chunk_bytes));
  let next = 0;
  let done = 0;
  let failed = false;
  const lane = async () => {
    const buffer = new Uint8Array(Math.min(chunk_bytes, weights_bytes));
    while (next < entries.length && !failed) {
      const index = next++;
      const offset = index * chunk_bytes;
      const chunk = buffer.subarray(0, Math.min(chunk_bytes, weights_bytes - offset));
      try {
        checkCancelled(stream.signal);
        entries[index] = await passChunk(stream, index, offset, chunk);
      } catch (error) {
        failed = true;
        throw error;
      }
      done += chunk.length;
      stream.on_progress?.(done);
    }
  };
  const lanes = Array.from({ length: Math.min(limits.convert_chunks_in_flight, entries.length) }, lane);
  const ends = await Promise.allSettled(lanes);
  for (const end of ends) if (end.status === "rejected") throw end.reason;
  return entries;
}

async function passChunk(
  stream: WeightsStream,
  index: number,
  offset: number,
  chunk: Uint8Array<ArrayBuffer>,
): Promise<ChunkEntry> {
  await fillChunk(stream.placed, offset, chunk);
  const strong = webcrypto.subtle.digest("SHA-256", chunk);
  const fast = stream.xxh3(chunk).toString(16).padStart(16, "0");
  const entry = { sha256: toHex(new Uint8Array(await strong)), xxh3: fast };
  await stream.sink(index, offset, chunk, entry);
  return entry;
}

/** Bytes of weights.bin from `offset` on: tensors, and zeros between and behind them. */
async function fillChunk(
  placed: readonly PlacedTensor<SourceTensor>[],
  offset: number,
  chunk: Uint8Array,
): Promise<void> {
  const end = offset + chunk.length;
  const reads: Promise<void>[] = [];
  let filled = 0;
  for (let i = firstEndingAfter(placed, offset); i < placed.length; i++) {
    const piece = placed[i];
    if (piece === undefined || piece.offset >= end) break;
    const { tensor } = piece;
    const from = Math.max(piece.offset, offset);
    const to = Math.min(piece.offset + tensor.bytes, end);
    chunk.fill(0, filled, from - offset);
    filled = to - offset;
    const into = chunk.subarray(from - offset, to - offset);
    reads.push(tensor.source.read(tensor.file_offset + from - piece.offset, into));
  }
  chunk.fill(0, filled);
  await Promise.all(reads);
}

/** Index of the first tensor whose data ends behind `offset`. */
function firstEndingAfter(placed: readonly PlacedTensor[], offset: number): number {
  let low = 0;
  let high = placed.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const piece = placed[middle];
    if (piece !== undefined && piece.offset + piece.tensor.bytes <= offset) low = middle + 1;
    else high = middle;
  }
  return low;
}
