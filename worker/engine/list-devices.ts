/**
 * Program of the child process that lists the devices which the engine libraries find: opening a driver takes memory
 * that the worker should not hold. Arguments: native library, folder of the engine libraries. Writes the library's JSON
 * to stdout in one line and exits with 0; otherwise the reason stands on stderr.
 */
import process from "node:process";
import { runtimeLoader } from "../../native/bun-ffi-helpers/load.ts";
import { NativeLibrary } from "../../native/bun-ffi-helpers/native.ts";

const [library = "", engineLibraries = ""] = process.argv.slice(2);
try {
  const native = NativeLibrary.open(library, await runtimeLoader());
  process.stdout.write(`${native.devices(engineLibraries)}\n`);
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
