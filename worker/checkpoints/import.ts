/** The public entry of checkpoint import: turns model files into checkpoints of a store and opens those. */
import { runtimeLoader } from "../../native/bun-ffi-helpers/load.ts";
import { NativeLibrary, NativeLoadError } from "../../native/bun-ffi-helpers/native.ts";
import type { AdapterManifest } from "../../schema/checkpoint/manifest.ts";
import { SllmError } from "../../schema/error.ts";
import type { ConvertOptions, ConvertResult, ConvertTools } from "./import/conversion.ts";
import { convertAdapterWith, convertWith } from "./import/convert.ts";
import { storeEntries } from "./import/eviction.ts";
import { childLayoutPlanner } from "./import/layout.ts";
import { markUsed, pin, unpin } from "./import/marks.ts";
import { defaultNativePaths, type NativePaths } from "./import/native-paths.ts";
import { systemFailure } from "./import/system-failure.ts";
import { type VerifiedStore, type VerifyOptions, verifyStoreWith } from "./import/verify-store.ts";

export type { ConvertOptions, ConvertProgress, ConvertResult } from "./import/conversion.ts";
export type { NativePaths } from "./import/native-paths.ts";
export {
  asAdapter,
  asModel,
  parseManifest,
  readCheckpoint,
  readManifest,
  type StoredAdapter,
  type StoredCheckpoint,
  type StoredModel,
} from "./import/verify.ts";
export type { Damage, VerifiedCheckpoint, VerifiedStore, VerifyOptions } from "./import/verify-store.ts";

/**
 * Converts a GGUF file (any part of a split one) into a checkpoint of the store. The folder appears whole or not at
 * all; the same content gives the same digest, and a store that holds it already is left as it is. `native` tells
 * where the libraries are when they are not where a checkout has them.
 * Errors: `checkpoint_invalid`, `checkpoint_unsupported`, `native_unavailable`, `insufficient_memory`, `disk_full`,
 * `store_read_only`, `permission_denied`, `file_changed`, `io_error`, `cancelled`.
 */
export async function convertGguf(
  options: ConvertOptions & { readonly native?: NativePaths | undefined },
): Promise<ConvertResult> {
  return await convertWith(await openTools(options), options);
}

/** Converts a GGUF file with a LoRA adapter into a checkpoint of the store. As `convertGguf` in every other way. */
export async function convertAdapter(
  options: ConvertOptions & { readonly native?: NativePaths | undefined },
): Promise<ConvertResult<AdapterManifest>> {
  return await convertAdapterWith(await openTools(options), options);
}

async function openTools(options: { readonly native?: NativePaths | undefined }): Promise<ConvertTools> {
  const paths = options.native ?? defaultNativePaths();
  const native = await openNative(paths.library);
  return { plan: childLayoutPlanner(paths), xxh3: (bytes: Uint8Array) => native.digestXxh3(bytes) };
}

/**
 * Reads checkpoints of a store and compares every byte with their manifests: files, sizes, the header's SHA-256 and
 * every chunk by its fast digest, with `strong` by its SHA-256 too. What is wrong is part of the result. Files are read
 * through the page cache. Errors: `io_error` (the store cannot be listed), `not_found`, `native_unavailable`,
 * `cancelled`.
 */
export async function verifyStore(
  options: VerifyOptions & { readonly native?: NativePaths | undefined },
): Promise<VerifiedStore> {
  const native = await openNative((options.native ?? defaultNativePaths()).library);
  return await verifyStoreWith((bytes) => native.digestXxh3(bytes), options);
}

/**
 * Pins a checkpoint of the store, so that it is never evicted, or lets it go again. Errors: `not_found` for a
 * checkpoint that is not there, `store_read_only`, `permission_denied`, `io_error`.
 */
export async function pinCheckpoint(store_dir: string, digest: string, isPinned: boolean): Promise<void> {
  if (!isPinned) return await unpin(store_dir, digest);
  if (!(await storeEntries(store_dir).catch(noStore)).some((entry) => entry.digest === digest)) {
    throw new SllmError("not_found", `The store ${store_dir} has no checkpoint ${digest}.`);
  }
  await pin(store_dir, digest);
}

/** Notes that somebody wants the checkpoint now: it is not among the next to be evicted. Errors: as `pinCheckpoint`. */
export async function touchCheckpoint(store_dir: string, digest: string): Promise<void> {
  await markUsed(store_dir, digest).catch((cause: unknown) => {
    throw systemFailure("Cannot mark a use in the checkpoint store", cause);
  });
}

function noStore(cause: unknown): never {
  throw systemFailure("Cannot list the checkpoint store", cause);
}

async function openNative(path: string): Promise<NativeLibrary> {
  try {
    return NativeLibrary.open(path, await runtimeLoader());
  } catch (cause) {
    if (!(cause instanceof NativeLoadError)) throw cause;
    throw new SllmError("native_unavailable", cause.message, { cause });
  }
}
