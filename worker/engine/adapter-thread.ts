/**
 * Thread of an engine process that brings LoRA adapters to its engine, one after the other: the call copies all their
 * weights, and neither the thread that takes commands nor the one that takes events may wait for that.
 */
import { runtimeLoader } from "../../native/bun-ffi-helpers/load.ts";
import { NativeLibrary, SllmNativeError } from "../../native/bun-ffi-helpers/native.ts";
import { toWireError } from "../status-codes.ts";
import { enterEngine, leaveEngine } from "./engine-gate.ts";
import type { AdapterCommand, AdapterMessage } from "./pump-messages.ts";

/** A promise, not awaited here: the first message could come while the module still waits. */
const loader = runtimeLoader();
let opened: NativeLibrary | null = null;

async function add({ library, control, handle, params }: AdapterCommand): Promise<AdapterMessage> {
  const { adapter } = params;
  const words = new Int32Array(control);
  try {
    opened ??= NativeLibrary.open(library, await loader);
    if (!enterEngine(words)) {
      const message = "The engine ended before it had the adapter.";
      return { type: "adapter_refused", adapter, error: { code: "engine_failed", message } };
    }
    try {
      opened.borrowEngine(handle).addAdapter(params);
    } finally {
      leaveEngine(words);
    }
    return { type: "adapter_added", adapter };
  } catch (error) {
    if (error instanceof SllmNativeError)
      return { type: "adapter_refused", adapter, error: toWireError(error) };
    const message = error instanceof Error ? error.message : String(error);
    return { type: "adapter_refused", adapter, error: { code: "internal", message } };
  }
}

let last: Promise<void> = Promise.resolve();

addEventListener("message", ({ data }: MessageEvent<AdapterCommand>) => {
  last = last.then(async () => postMessage(await add(data)));
});
