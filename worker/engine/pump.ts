/**
 * Thread of an engine process that owns the native engine: makes it, then waits, drains and posts batches until it
 * is told to stop. It blocks inside the library, so the main thread never has to.
 */

import { runtimeLoader } from "../../native/bun-ffi-helpers/load.ts";
import {
  type DrainBuffers,
  type NativeEngine,
  NativeLibrary,
  newDrainBuffers,
  SllmNativeError,
} from "../../native/bun-ffi-helpers/native.ts";
import type { WireError } from "../../schema/error.ts";
import { loadErrorCode } from "../status-codes.ts";
import { isFatal, toMessages } from "./events.ts";
import {
  type CreateCommand,
  controlWord,
  maxUnwrittenBatches,
  type PumpMessage,
  type WarmCommand,
} from "./pump-messages.ts";

/** How long the pump stays inside one wait: the time after which it sees that it shall stop. */
const waitUs = 20_000;
/** Pause while the main thread is behind with writing. */
const behindMs = 5;
const eventsPerDrain = 256;

/** A promise, not awaited here: the first message could come while the module still waits. */
const loader = runtimeLoader();

function post(message: PumpMessage): void {
  postMessage(message);
}

addEventListener("message", ({ data }: MessageEvent<WarmCommand | CreateCommand>) => {
  void (data.op === "warm" ? warm(data) : run(data));
});

async function warm(command: WarmCommand): Promise<void> {
  try {
    NativeLibrary.open(command.library, await loader).warmEngine(command.engine_libraries);
    post({ type: "warm" });
  } catch (error) {
    post({ type: "failed", error: describe(error) });
    post({ type: "closed" });
  }
}

async function run(command: CreateCommand): Promise<void> {
  try {
    using engine = await create(command);
    pump(engine, new Int32Array(command.control));
  } catch (error) {
    post({ type: "failed", error: describe(error) });
  }
  post({ type: "closed" });
}

async function create(command: CreateCommand): Promise<NativeEngine> {
  const library = NativeLibrary.open(command.library, await loader);
  const engine = library.createEngine(command.params);
  const { context_tokens, model_build_ms, weights_wait_ms } = engine.info();
  post({ type: "created", handle: engine.handle, context_tokens, model_build_ms, weights_wait_ms });
  return engine;
}

function pump(engine: NativeEngine, control: Int32Array): void {
  const buffers = newDrainBuffers(eventsPerDrain);
  while (Atomics.load(control, controlWord.stop) === 0) {
    if (Atomics.load(control, controlWord.unwritten) >= maxUnwrittenBatches) {
      Atomics.wait(control, controlWord.unwritten, maxUnwrittenBatches, behindMs);
      continue;
    }
    engine.wait(waitUs);
    if (!drainOnce(engine, buffers, control)) return;
  }
}

/** False when the engine has failed. */
function drainOnce(engine: NativeEngine, buffers: DrainBuffers, control: Int32Array): boolean {
  const events = engine.drain(buffers);
  if (events.length === 0) return true;
  Atomics.add(control, controlWord.unwritten, 1);
  post({ type: "batch", messages: toMessages(events) });
  const fatal = events.find(isFatal);
  if (fatal) post({ type: "failed", error: { code: "engine_failed", message: fatal.text } });
  return !fatal;
}

function describe(error: unknown): WireError {
  if (error instanceof SllmNativeError) {
    return { code: loadErrorCode(error.status_name), message: error.message };
  }
  return { code: "internal", message: error instanceof Error ? error.message : String(error) };
}
