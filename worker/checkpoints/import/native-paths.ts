/** Where the native library and the engine libraries lie, for programs that are not told, and how they are run. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";

export interface NativePaths {
  /** Path of libsllm.so. */
  readonly library: string;
  /** Folder of libllama and its CPU variants. */
  readonly engine_libraries: string;
}

const repositoryRoot = join(import.meta.dirname, "../../..");

/** Compiled for this processor, where deploy/scripts/engines.mjs has built them, and those of the package. */
const engineFolders = {
  built: "native/vendor/engines/linux-x64-native-0.5.0",
  packaged: "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64",
} as const;

/** Paths from SLLM_NATIVE_LIBRARY and SLLM_ENGINE_LIBRARIES, or those of a checkout that was set up. */
export function defaultNativePaths(): NativePaths {
  return {
    library: process.env.SLLM_NATIVE_LIBRARY ?? join(repositoryRoot, "native/build/libsllm.so"),
    engine_libraries: process.env.SLLM_ENGINE_LIBRARIES ?? processorLibraries(repositoryRoot),
  };
}

/** Folder of the engine libraries for processors in a checkout. */
export function processorLibraries(repository: string): string {
  const built = join(repository, engineFolders.built);
  return existsSync(join(built, ".complete")) ? built : join(repository, engineFolders.packaged);
}

/** Environment of a process that may die inside the engine library: without the debugger that it starts then. */
export function engineChildEnvironment(): Record<string, string | undefined> {
  return { ...process.env, GGML_NO_BACKTRACE: "1" };
}
