/** An engine of the native library: one model instance that takes requests and is drained of events. */
import { CallMemory, cString } from "./call-memory.ts";
import { checkStatus, fillText } from "./checked-calls.ts";
import { toSafeNumber } from "./errors.ts";
import {
  engineInfo,
  type engineKind,
  event,
  type eventKind,
  request as requestStruct,
  statuses,
  textSpan,
} from "./sllm-structs.ts";
import type { NativeBinding, NativeHandle } from "./symbols.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export interface NativeEngineParams {
  readonly kind: keyof typeof engineKind;
  readonly library_dir: string;
  readonly header_path: string;
  readonly weights_path: string;
  readonly weights_bytes: bigint;
  readonly context_tokens: number;
  readonly slots: number;
  readonly batch_tokens: number;
  readonly threads: number;
  readonly queue: number;
  readonly echo_token_us: number;
  /** Names as in sllm_devices, separated by commas, perhaps with shares; the CPU when absent. */
  readonly devices?: string;
}

export interface NativeEngineInfo {
  readonly vocabulary_tokens: number;
  readonly context_tokens: number;
  readonly slots: number;
  readonly model_build_ms: number;
  readonly weights_wait_ms: number;
  /** To devices; 0 on a CPU. */
  readonly uploaded_bytes: number;
  readonly upload_ms: number;
  readonly upload_wait_ms: number;
}

export interface NativeRequest {
  readonly request: number;
  readonly prompt: Int32Array;
  /** 0: until the context is full. */
  readonly max_tokens: number;
  readonly ignore_eos: boolean;
  readonly seed: bigint;
  readonly temperature: number;
  readonly top_k: number;
  readonly top_p: number;
  readonly min_p: number;
  readonly stop: readonly string[];
}

/** sllm_event with its text; see the header for which members a kind fills. */
export interface NativeEvent {
  readonly request: number;
  readonly kind: (typeof eventKind)[keyof typeof eventKind];
  readonly status: number;
  readonly token: number;
  readonly index: number;
  readonly text: string;
  readonly prompt_tokens: number;
  readonly queue_ms: number;
  readonly prefill_ms: number;
  readonly decode_ms: number;
}

/** Buffers of a drain loop, used again and again; `text` grows when one event's text does not fit. */
export interface DrainBuffers {
  readonly events: Uint8Array;
  readonly view: DataView;
  readonly capacity: number;
  text: Uint8Array;
  readonly count: BigUint64Array;
  readonly text_bytes: BigUint64Array;
}

/** Buffers for up to `capacity` events per drain. */
export function newDrainBuffers(capacity: number): DrainBuffers {
  const events = new Uint8Array(new ArrayBuffer(capacity * event.bytes));
  return {
    events,
    view: new DataView(events.buffer),
    capacity,
    text: new Uint8Array(capacity * 64),
    count: new BigUint64Array(1),
    text_bytes: new BigUint64Array(1),
  };
}

/** Dispose of it only where it was created (a borrowed engine never); calls afterwards throw. */
export class NativeEngine implements Disposable {
  readonly #binding: NativeBinding;
  #handle: NativeHandle | null;

  constructor(binding: NativeBinding, handle: NativeHandle) {
    this.#binding = binding;
    this.#handle = handle;
  }

  /** To lend the engine to another thread with NativeLibrary.borrowEngine. */
  get handle(): NativeHandle {
    return this.#open();
  }

  /** sllm_engine_info_get. */
  info(): NativeEngineInfo {
    const out = engineInfo.allocate();
    const status = this.#binding.calls.sllm_engine_info_get(this.#open(), out);
    checkStatus("sllm_engine_info_get", this.#binding, status);
    const { struct_size: _, ...info } = engineInfo.decode(new DataView(out.buffer));
    return { ...info, uploaded_bytes: toSafeNumber(info.uploaded_bytes, "number of uploaded bytes") };
  }

  /** sllm_engine_device_memory: JSON text. Any thread. */
  deviceMemory(): string {
    return fillText("sllm_engine_device_memory", this.#binding, (out, cap, needed) =>
      this.#binding.calls.sllm_engine_device_memory(this.#open(), out, cap, needed),
    );
  }

  /** sllm_engine_attach: blocks until all weights of the host copy are there; null only for the echo engine. */
  attach(weights_path: string | null): void {
    const path = weights_path === null ? null : cString(weights_path);
    const status = this.#binding.calls.sllm_engine_attach(this.#open(), path);
    checkStatus("sllm_engine_attach", this.#binding, status);
  }

  /** sllm_engine_park: lets memory go; `keep_weights` leaves the host copy's pages mapped. Blocks shortly. */
  park(options: { readonly keep_weights: boolean }): void {
    const status = this.#binding.calls.sllm_engine_park(this.#open(), options.keep_weights ? 1 : 0);
    checkStatus("sllm_engine_park", this.#binding, status);
  }

  /** sllm_engine_render_chat: `messages` is a JSON array of {"role","content"}. Any thread. */
  renderChat(messages: string): string {
    const bytes = encoder.encode(messages);
    return fillText("sllm_engine_render_chat", this.#binding, (out, cap, needed) =>
      this.#binding.calls.sllm_engine_render_chat(this.#open(), bytes, bytes.length, out, cap, needed),
    );
  }

  /** sllm_engine_tokenize. Any thread. */
  tokenize(text: string, options: { add_special: boolean; parse_special: boolean }): Int32Array {
    const bytes = encoder.encode(text);
    const count = new BigUint64Array(1);
    for (let cap = bytes.length + 16; ; ) {
      const out = new Int32Array(cap);
      const status = this.#binding.calls.sllm_engine_tokenize(
        this.#open(),
        bytes.length === 0 ? null : bytes,
        bytes.length,
        options.add_special ? 1 : 0,
        options.parse_special ? 1 : 0,
        out,
        cap,
        count,
      );
      const n = toSafeNumber(count[0] ?? 0n, "number of tokens");
      if (status === statuses.SLLM_E_BUFFER_TOO_SMALL && n > cap) {
        cap = n;
        continue;
      }
      checkStatus("sllm_engine_tokenize", this.#binding, status);
      return out.subarray(0, n);
    }
  }

  /** sllm_engine_submit: exactly one DONE or ERROR event follows unless this throws. Any thread. */
  submit(request: NativeRequest): void {
    using memory = new CallMemory(this.#binding);
    const stop = new Uint8Array(new ArrayBuffer(request.stop.length * textSpan.bytes));
    for (const [i, text] of request.stop.entries()) {
      const bytes = encoder.encode(text);
      stop.set(
        textSpan.encode({ data: memory.address(bytes), bytes: BigInt(bytes.length) }),
        i * textSpan.bytes,
      );
    }
    const encoded = requestStruct.encode({
      ignore_eos: request.ignore_eos ? 1 : 0,
      request: BigInt(request.request),
      prompt: memory.address(request.prompt),
      n_prompt: BigInt(request.prompt.length),
      max_tokens: BigInt(request.max_tokens),
      seed: request.seed,
      temperature: request.temperature,
      top_p: request.top_p,
      min_p: request.min_p,
      top_k: request.top_k,
      n_stop: request.stop.length,
      stop: memory.address(stop),
    });
    const status = this.#binding.calls.sllm_engine_submit(this.#open(), encoded);
    checkStatus("sllm_engine_submit", this.#binding, status);
  }

  /** sllm_engine_cancel; false when the request has ended. Any thread. */
  cancel(request: number): boolean {
    const status = this.#binding.calls.sllm_engine_cancel(this.#open(), BigInt(request));
    if (status === statuses.SLLM_E_NOT_FOUND) return false;
    checkStatus("sllm_engine_cancel", this.#binding, status);
    return true;
  }

  /** sllm_engine_wait: blocks until there are events or the time is over; keep it off the event loop. */
  wait(timeout_us: number): void {
    const status = this.#binding.calls.sllm_engine_wait(this.#open(), timeout_us);
    checkStatus("sllm_engine_wait", this.#binding, status);
  }

  /** sllm_engine_drain: the oldest events, none when there are none. One thread at a time. */
  drain(buffers: DrainBuffers): NativeEvent[] {
    for (;;) {
      const status = this.#binding.calls.sllm_engine_drain(
        this.#open(),
        buffers.events,
        buffers.capacity,
        buffers.count,
        buffers.text,
        buffers.text.byteLength,
        buffers.text_bytes,
      );
      if (status === statuses.SLLM_E_BUFFER_TOO_SMALL) {
        buffers.text = new Uint8Array(buffers.text.byteLength * 2);
        continue;
      }
      checkStatus("sllm_engine_drain", this.#binding, status);
      return decodeEvents(buffers);
    }
  }

  /** Blocks until the engine's threads are joined. */
  [Symbol.dispose](): void {
    const handle = this.#handle;
    if (handle === null) return;
    this.#handle = null;
    this.#binding.calls.sllm_engine_destroy(handle);
  }

  #open(): NativeHandle {
    if (this.#handle === null) throw new Error("the engine has been disposed of");
    return this.#handle;
  }
}

function decodeEvents(buffers: DrainBuffers): NativeEvent[] {
  const events: NativeEvent[] = [];
  const count = toSafeNumber(buffers.count[0] ?? 0n, "number of events");
  for (let i = 0; i < count; i++) {
    const found = event.decode(buffers.view, i * event.bytes);
    const text = buffers.text.subarray(found.text_offset, found.text_offset + found.text_bytes);
    events.push({
      request: toSafeNumber(found.request, "request number"),
      // The header defines no other kinds; one that came later would be of another ABI version.
      kind: found.kind as NativeEvent["kind"],
      status: found.status,
      token: found.token,
      index: found.index,
      text: text.length === 0 ? "" : decoder.decode(text),
      prompt_tokens: found.prompt_tokens,
      queue_ms: found.queue_ms,
      prefill_ms: found.prefill_ms,
      decode_ms: found.decode_ms,
    });
  }
  return events;
}
