/**
 * Program of the child process that asks the engine library for the canonical order of a model's tensors.
 * Arguments: native library, folder of the engine libraries, header file. Writes one JSON line of the form
 * `LayoutReply` to stdout and exits with 0; a death without that line means that the header killed the library.
 */
import process from "node:process";
import { runtimeLoader } from "../../../native/bun-ffi-helpers/load.ts";
import {
  type FailureName,
  NativeLibrary,
  NativeLoadError,
  SllmNativeError,
} from "../../../native/bun-ffi-helpers/native.ts";
import type { ErrorCode } from "../../../schema/codes.ts";
import type { LayoutReply } from "./layout-reply.ts";

function codeOf(status: FailureName): ErrorCode {
  switch (status) {
    case "SLLM_E_CORRUPT":
      return "checkpoint_invalid";
    case "SLLM_E_MODEL_UNSUPPORTED":
      return "checkpoint_unsupported";
    case "SLLM_E_OUT_OF_MEMORY":
      return "insufficient_memory";
    case "SLLM_E_IO":
    case "SLLM_E_NOT_FOUND":
      return "io_error";
    case "SLLM_E_LIBRARY_MISSING":
    case "SLLM_E_LIBRARY_VERSION":
      return "native_unavailable";
    default:
      return "internal";
  }
}

async function plan(library: string, engineLibraries: string, header: string): Promise<LayoutReply> {
  try {
    const native = NativeLibrary.open(library, await runtimeLoader());
    return { order: JSON.parse(native.layoutPlan(engineLibraries, header)) };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    if (error instanceof SllmNativeError) return { error: { code: codeOf(error.status_name), message } };
    if (error instanceof NativeLoadError) return { error: { code: "native_unavailable", message } };
    throw error;
  }
}

const [library = "", engineLibraries = "", header = ""] = process.argv.slice(2);
const reply = await plan(library, engineLibraries, header);
process.stdout.write(`${JSON.stringify(reply)}\n`);
