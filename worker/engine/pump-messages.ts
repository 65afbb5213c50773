/** What the two threads of an engine process say to each other. */
import type { NativeEngineParams, NativeHandle } from "../../native/bun-ffi-helpers/native.ts";
import type { EngineMessage } from "../../schema/cluster/engine.ts";
import type { WireError } from "../../schema/error.ts";

/** Shared words: the pump cannot receive messages while it waits inside the library. */
export const controlWord = {
  /** Set to 1 by the main thread: end the engine and say `closed`. */
  stop: 0,
  /** Batches posted and not yet written; the pump pauses above `maxUnwrittenBatches`. */
  unwritten: 1,
} as const;
export const controlWords = 2;

/** Bounds what lies between the threads when the reader of our standard output is slow. */
export const maxUnwrittenBatches = 64;

/** Main thread to pump, before the engine is made: load the engine libraries ahead. */
export interface WarmCommand {
  readonly op: "warm";
  readonly library: string;
  readonly engine_libraries: string;
}

/** Main thread to pump, once. */
export interface CreateCommand {
  readonly op: "create";
  readonly library: string;
  readonly params: NativeEngineParams;
  readonly control: SharedArrayBuffer;
}

/** Pump to main thread. */
export type PumpMessage =
  | { readonly type: "warm" }
  | {
      readonly type: "created";
      readonly handle: NativeHandle;
      readonly context_tokens: number;
      readonly model_build_ms: number;
      readonly weights_wait_ms: number;
    }
  /** The engine could not be made or has failed; only `closed` follows. */
  | { readonly type: "failed"; readonly error: WireError }
  | { readonly type: "batch"; readonly messages: EngineMessage[] }
  /** The engine is destroyed. */
  | { readonly type: "closed" };
