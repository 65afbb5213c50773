/**
 * Thread of an engine process that owns the native engine: builds it, gives it weights and takes them, and while it
 * has them waits, drains and posts batches. It blocks inside the library, so the main thread never has to.
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
import { taskOfPooling } from "./embed-inputs.ts";
import { shutEngine } from "./engine-gate.ts";
import { isFatal, toMessages } from "./events.ts";
import { controlWord, maxUnwrittenBatches, type PumpCommand, type PumpMessage } from "./pump-messages.ts";

/** How long the pump stays inside one wait: the time after which it sees that there is a message for it. */
const waitUs = 20_000;
/** Pause while the main thread is behind with writing. */
const behindMs = 5;
const eventsPerDrain = 256;

type OpenCommand = Extract<PumpCommand, { op: "open" }>;

/** A promise, not awaited here: the first message could come while the module still waits. */
const loader = runtimeLoader();

function post(message: PumpMessage): void {
  postMessage(message);
}

/** The engine of this process and what is done with it. Ends with `closed` after the first failure. */
class Pump {
  readonly #library: NativeLibrary;
  readonly #control: Int32Array;
  #engine: NativeEngine | null = null;
  #closed = false;

  constructor(library: NativeLibrary, control: SharedArrayBuffer) {
    this.#library = library;
    this.#control = new Int32Array(control);
  }

  /** Carries one command out. Draining, which ends with the next message, is part of `attach`. */
  handle(command: Exclude<PumpCommand, OpenCommand>): void {
    Atomics.sub(this.#control, controlWord.messages, 1);
    if (this.#closed) return;
    try {
      if (command.op === "close" || !this.#carryOut(command)) this.#close();
    } catch (error) {
      post({ type: "failed", error: describe(error) });
      this.#close();
    }
  }

  /** False when the engine has failed. */
  #carryOut(command: Exclude<PumpCommand, OpenCommand | { op: "close" }>): boolean {
    switch (command.op) {
      case "warm":
        this.#library.warmEngine(command.engine_libraries);
        post({ type: "warm" });
        return true;
      case "build":
        this.#build(command);
        return true;
      case "attach":
        return this.#attach(command.weights_path);
      case "park":
        this.#park(command.keep_weights);
        return true;
    }
  }

  #build({ params }: Extract<PumpCommand, { op: "build" }>): void {
    this.#engine = this.#library.buildEngine(params);
    const { handle } = this.#engine;
    const { context_tokens, model_build_ms, pooling } = this.#engine.info();
    post({ type: "built", handle, context_tokens, task: taskOfPooling(pooling), model_build_ms });
  }

  #attach(weights_path: string | null): boolean {
    const engine = this.#open();
    engine.attach(weights_path);
    const { model_build_ms, weights_wait_ms, fingerprint, ...info } = engine.info();
    const { kv_token_bytes: token_bytes, kv_fingerprint } = info;
    const { uploaded_bytes: bytes, upload_ms, upload_wait_ms: wait_ms } = info;
    post({
      type: "attached",
      model_build_ms,
      weights_wait_ms,
      ...(bytes > 0 ? { upload: { bytes, upload_ms, wait_ms } } : {}),
      ...(fingerprint === "" ? {} : { fingerprint }),
      ...(token_bytes === 0 ? {} : { kv: { token_bytes, fingerprint: kv_fingerprint } }),
    });
    return this.#drainUntilMessage(engine);
  }

  #park(keep_weights: boolean): void {
    this.#open().park({ keep_weights });
    post({ type: "parked", weights_kept: keep_weights });
  }

  #close(): void {
    this.#closed = true;
    shutEngine(this.#control);
    this.#engine?.[Symbol.dispose]();
    post({ type: "closed" });
  }

  #open(): NativeEngine {
    if (this.#engine === null) throw new Error("there is no engine yet");
    return this.#engine;
  }

  #drainUntilMessage(engine: NativeEngine): boolean {
    const buffers = newDrainBuffers(eventsPerDrain);
    while (Atomics.load(this.#control, controlWord.messages) === 0) {
      if (Atomics.exchange(this.#control, controlWord.asked, 0) === 1) {
        post({ type: "activity", activity: engine.activity() });
      }
      if (Atomics.load(this.#control, controlWord.unwritten) >= maxUnwrittenBatches) {
        Atomics.wait(this.#control, controlWord.unwritten, maxUnwrittenBatches, behindMs);
        continue;
      }
      engine.wait(waitUs);
      if (!this.#drainOnce(engine, buffers)) return false;
    }
    return true;
  }

  #drainOnce(engine: NativeEngine, buffers: DrainBuffers): boolean {
    const events = engine.drain(buffers);
    if (events.length === 0) return true;
    Atomics.add(this.#control, controlWord.unwritten, 1);
    post({ type: "batch", messages: toMessages(events) });
    const fatal = events.find(isFatal);
    if (fatal) post({ type: "failed", error: { code: "engine_failed", message: fatal.text } });
    return !fatal;
  }
}

function describe(error: unknown): WireError {
  if (error instanceof SllmNativeError) {
    return { code: loadErrorCode(error.status_name), message: error.message };
  }
  return { code: "internal", message: error instanceof Error ? error.message : String(error) };
}

async function open(command: OpenCommand): Promise<Pump | null> {
  try {
    return new Pump(NativeLibrary.open(command.library, await loader), command.control);
  } catch (error) {
    post({ type: "failed", error: describe(error) });
    post({ type: "closed" });
    return null;
  }
}

let pump: Promise<Pump | null> = Promise.resolve(null);

addEventListener("message", ({ data }: MessageEvent<PumpCommand>) => {
  if (data.op === "open") pump = open(data);
  else void pump.then((opened) => opened?.handle(data));
});
