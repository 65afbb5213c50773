/** The native library as tests use it: where it lies, and digests by it. */
import path from "node:path";
import { runtimeLoader } from "../../native/bun-ffi-helpers/load.ts";
import { NativeLibrary } from "../../native/bun-ffi-helpers/native.ts";
import { defaultNativePaths } from "../../worker/checkpoints/import/native-paths.ts";
import { repositoryRoot } from "./processes.ts";

/** The native library, and the folder of libllama and its CPU variants: what programs take that are not told. */
export const { library: nativeLibraryPath, engine_libraries: engineLibrariesPath } = defaultNativePaths();

export const denoPath = path.join(repositoryRoot, "node_modules/.bin/deno");

/** The library, opened in the test's own process. */
export async function openNativeLibrary(): Promise<NativeLibrary> {
  return NativeLibrary.open(nativeLibraryPath, await runtimeLoader());
}
