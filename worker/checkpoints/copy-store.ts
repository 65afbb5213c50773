/** What the tiers use of the native store, and how a checkpoint is read into it. */
import type {
  NativeArenaStatus,
  NativeLoadParams,
  NativeLoadStatus,
} from "../../native/bun-ffi-helpers/native.ts";
import type { StoredCheckpoint } from "./disk-tier.ts";

export interface CopyStore {
  load(params: NativeLoadParams): bigint;
  status(load: bigint): NativeLoadStatus;
  release(load: bigint): void;
  arena(): NativeArenaStatus;
}

/** The read of all weights of a checkpoint, every chunk with its digest, in the order of the file. */
export function loadParams({ manifest, weights_path }: StoredCheckpoint): NativeLoadParams {
  const { bytes, chunk_bytes, chunks } = manifest.weights;
  const chunk_digests = BigUint64Array.from(chunks, (chunk) => BigInt(`0x${chunk.xxh3}`));
  return { weights_path, weights_bytes: bytes, chunk_bytes, chunk_digests };
}
