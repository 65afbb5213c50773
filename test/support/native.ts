/** The native library as tests use it: where it lies, and digests by it. */
import path from "node:path";
import { runtimeLoader } from "../../native/bun-ffi-helpers/load.ts";
import { NativeLibrary } from "../../native/bun-ffi-helpers/native.ts";
import { repositoryRoot } from "./processes.ts";

export const nativeLibraryPath =
  process.env.SLLM_NATIVE_LIBRARY ?? path.join(repositoryRoot, "native/build/libsllm.so");

/** Folder of libllama and its CPU variants. */
export const engineLibrariesPath =
  process.env.SLLM_ENGINE_LIBRARIES ??
  path.join(repositoryRoot, "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64");

export const denoPath = path.join(repositoryRoot, "node_modules/.bin/deno");

/** The library, opened in the test's own process. */
export async function openNativeLibrary(): Promise<NativeLibrary> {
  return NativeLibrary.open(nativeLibraryPath, await runtimeLoader());
}
