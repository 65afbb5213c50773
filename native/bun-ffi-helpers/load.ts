/** Chooses the loader of the runtime that is running, without importing the other one. */
import type { NativeLoader } from "./symbols.ts";

/** Bun and Deno have a foreign function interface; every other runtime is refused by name. */
export async function runtimeLoader(): Promise<NativeLoader> {
  if ("Deno" in globalThis) return (await import("./load-deno.ts")).loadDeno;
  if ("Bun" in globalThis) return (await import("./load-bun.ts")).loadBun;
  throw new Error("The native library is called through Bun or Deno; this runtime is neither.");
}
