/** What the threads of an engine process say to each other. */
import type {
  NativeAdapterParams,
  NativeEngineParams,
  NativeHandle,
} from "../../native/bun-ffi-helpers/native.ts";
import type { EngineBeat } from "../../schema/cluster/activity.ts";
import type { EngineMessage } from "../../schema/cluster/engine.ts";
import type { WireError } from "../../schema/error.ts";
import type { ModelTask } from "../../schema/vocab.ts";

/** Shared words: the pump cannot receive messages while it waits inside the library. */
export const controlWord = {
  /** Messages posted to the pump and not yet taken: it leaves its loop for them. */
  messages: 0,
  /** Batches posted and not yet written; the pump pauses above `maxUnwrittenBatches`. */
  unwritten: 1,
  /** 1: the main thread wants to know what the engine is at. The pump answers while it takes events. */
  asked: 2,
  /** Threads inside of long calls of the engine beside its owner; see engine-gate.ts. */
  inside: 3,
} as const;
export const controlWords = 4;

/** Bounds what lies between the threads when the reader of our standard output is slow. */
export const maxUnwrittenBatches = 64;

/** Main thread to pump. */
export type PumpCommand =
  /** First of all, and once: where the library and the shared words are. */
  | { readonly op: "open"; readonly library: string; readonly control: SharedArrayBuffer }
  /** Load the engine libraries ahead. */
  | { readonly op: "warm"; readonly engine_libraries: string }
  /** Build the engine, once. */
  | { readonly op: "build"; readonly params: NativeEngineParams }
  /** Give the engine weights and drain its events until the next message; null for the echo engine. */
  | { readonly op: "attach"; readonly weights_path: string | null }
  | { readonly op: "park"; readonly keep_weights: boolean }
  /** Destroy the engine and say `closed`. */
  | { readonly op: "close" };

/** Pump to main thread. */
export type PumpMessage =
  | { readonly type: "warm" }
  | {
      readonly type: "built";
      readonly handle: NativeHandle;
      readonly context_tokens: number;
      readonly task: ModelTask;
      readonly model_build_ms: number;
    }
  | ({ readonly type: "attached" } & Omit<Extract<EngineMessage, { type: "ready" }>, "type">)
  | { readonly type: "parked"; readonly weights_kept: boolean }
  /** The engine could not do what it was told, or has failed; only `closed` follows. */
  | { readonly type: "failed"; readonly error: WireError }
  | { readonly type: "batch"; readonly messages: EngineMessage[] }
  /** What the engine was at when the main thread asked. */
  | { readonly type: "activity"; readonly activity: EngineBeat }
  /** The engine is destroyed. */
  | { readonly type: "closed" };

/** Main thread to the one that brings adapters in, which answers each with one message of the protocol. */
export interface AdapterCommand {
  readonly library: string;
  readonly control: SharedArrayBuffer;
  readonly handle: NativeHandle;
  readonly params: NativeAdapterParams;
}
export type AdapterMessage = Extract<EngineMessage, { type: "adapter_added" | "adapter_refused" }>;
