/** Why host memory cannot take a copy, or a copy cannot be used. Pure. */
import { type NativeLoadStatus, SllmNativeError } from "../../native/bun-ffi-helpers/native.ts";
import { SllmError } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import type { StoredCheckpoint } from "./disk-tier.ts";

/** What weights take in the arena: whole chunks. */
export function arenaBytesOf(bytes: number): number {
  return Math.ceil(bytes / limits.chunk_bytes) * limits.chunk_bytes;
}

/** Weights for which even an empty arena has no room. */
export function arenaTooSmall(needed: number, arena_bytes: number): SllmError {
  const chunks = needed / limits.chunk_bytes;
  return new SllmError(
    "arena_too_small",
    `The weights take ${chunks} chunks of ${limits.chunk_bytes} bytes, ${needed} bytes in all; ` +
      `the arena in host memory has ${arena_bytes}.`,
  );
}

/** Whether a load was refused because host memory is too small or in use. */
export function foundNoRoom(error: unknown): boolean {
  if (error instanceof SllmError) return error.code === "arena_too_small";
  return error instanceof SllmNativeError && error.status_name === "SLLM_E_OUT_OF_MEMORY";
}

/**
 * A read that failed from a file that is not the one it began with. When every byte agreed with its digest, a change
 * does not matter.
 */
export function changedUnderUs(
  checkpoint: StoredCheckpoint,
  failure: NativeLoadStatus["failure"],
): SllmError {
  const found = failure?.message.replaceAll(`${checkpoint.directory}/`, "");
  const message = `weights.bin of checkpoint ${checkpoint.digest} changed while it was read: ${found}`;
  return new SllmError("file_changed", message);
}
