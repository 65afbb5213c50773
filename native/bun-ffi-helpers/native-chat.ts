/** A conversation in the native library: its prompt and constraint, and the reading of its answer. */
import { checkStatus, createdHandle, fillText } from "./checked-calls.ts";
import type { NativeBinding, NativeHandle } from "./symbols.ts";

const encoder = new TextEncoder();
/** Deltas are a few words. */
const deltaBytes = 4_096;

/** What sllm_chat_describe says. */
export interface ChatDescription {
  readonly prompt: string;
  /** For the request; null when anything goes. */
  readonly constraint: string | null;
  /** Stop strings beside those of the request. */
  readonly stops: readonly string[];
  /** The answer's text is the message's content: nothing has to be fed. */
  readonly plain: boolean;
}

/** What sllm_chat_take says. */
export interface NativeMessageDelta {
  readonly content?: string;
  readonly reasoning_content?: string;
  readonly tool_calls?: { index: number; name?: string; arguments?: string }[];
}

/** One caller at a time; dispose of it before its engine. */
export class NativeChat implements Disposable {
  readonly #binding: NativeBinding;
  #handle: NativeHandle | null;

  /** sllm_chat_open. */
  constructor(binding: NativeBinding, engine: NativeHandle, request: string) {
    const bytes = encoder.encode(request);
    const out = new BigUint64Array(1);
    checkStatus("sllm_chat_open", binding, binding.calls.sllm_chat_open(engine, bytes, bytes.length, out));
    this.#binding = binding;
    this.#handle = createdHandle("sllm_chat_open", out);
  }

  /** sllm_chat_describe. */
  describe(): ChatDescription {
    return JSON.parse(
      fillText("sllm_chat_describe", this.#binding, (out, cap, needed) =>
        this.#binding.calls.sllm_chat_describe(this.#open(), out, cap, needed),
      ),
    );
  }

  /** sllm_chat_feed and sllm_chat_take: what more text adds to the message, perhaps nothing yet. */
  feed(text: string, last: boolean): NativeMessageDelta {
    const bytes = encoder.encode(text);
    const buffer = bytes.length === 0 ? null : bytes;
    const status = this.#binding.calls.sllm_chat_feed(this.#open(), buffer, bytes.length, last ? 1 : 0);
    checkStatus("sllm_chat_feed", this.#binding, status);
    const take = (out: Uint8Array, cap: number, needed: BigUint64Array) =>
      this.#binding.calls.sllm_chat_take(this.#open(), out, cap, needed);
    return JSON.parse(fillText("sllm_chat_take", this.#binding, take, deltaBytes));
  }

  [Symbol.dispose](): void {
    const handle = this.#handle;
    if (handle === null) return;
    this.#handle = null;
    this.#binding.calls.sllm_chat_close(handle);
  }

  #open(): NativeHandle {
    if (this.#handle === null) throw new Error("the conversation has been disposed of");
    return this.#handle;
  }
}
