/**
 * An engine of the native library: one model instance that takes requests and is drained of events. Longer than other
 * files because every function that takes an engine has its method here.
 */
import { CallMemory, cString } from "./call-memory.ts";
import { checkStatus, fillText, fillTokens } from "./checked-calls.ts";
import { toSafeNumber } from "./errors.ts";
import { NativeChat } from "./native-chat.ts";
import { type DrainBuffers, decodeEvents, type NativeEvent } from "./native-events.ts";
import {
  adapterParams,
  engineActivity,
  engineInfo,
  type engineKind,
  logitBias,
  request as requestStruct,
  statuses,
  textSpan,
} from "./sllm-structs.ts";
import type { NativeBinding, NativeHandle } from "./symbols.ts";

const encoder = new TextEncoder();

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
  /** Of a step for prompts while answers are generated; the library's own choice when absent. */
  readonly prefill_tokens?: number;
  /** That the KV cache holds for all slots together; a context for each when absent. */
  readonly kv_tokens?: number;
  readonly deterministic?: boolean;
  /** Matrices in the library's fastest layout, in memory of the engine's own. */
  readonly repacked?: boolean;
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
  /** Engines of one checkpoint with equal fingerprints continue each other's answers; "" outside that mode. */
  readonly fingerprint: string;
  /** SLLM_POOLING_*: 0 generates, 4 ranks, others embed. */
  readonly pooling: number;
  /** Of one vector; 0 where the engine generates. */
  readonly embedding_values: number;
  /** Of the KV cache for each token; 0: it cannot be moved. */
  readonly kv_token_bytes: number;
  /** Engines of one checkpoint with equal ones take each other's rows; "" where there are none to take. */
  readonly kv_fingerprint: string;
}

/** See sllm_engine_activity. */
export interface NativeEngineActivity {
  readonly slots: number;
  readonly running: number;
  readonly waiting: number;
  readonly kv_tokens: number;
  readonly kv_used_tokens: number;
  readonly steps: number;
  readonly computed_tokens: number;
  readonly progress: number;
  readonly last_step_tokens: number;
  readonly computing: boolean;
}

export interface NativeRequest {
  readonly request: number;
  readonly prompt: Int32Array;
  /** Output tokens generated before: the answer goes on after them. */
  readonly resume?: Int32Array;
  /** With resumed ones; 0: until the context is full. */
  readonly max_tokens: number;
  readonly ignore_eos: boolean;
  readonly seed: bigint;
  readonly temperature: number;
  readonly top_k: number;
  readonly top_p: number;
  readonly min_p: number;
  readonly stop: readonly string[];
  readonly typical_p?: number | undefined;
  readonly repeat_penalty?: number | undefined;
  readonly repeat_last_n?: number | undefined;
  readonly presence_penalty?: number | undefined;
  readonly frequency_penalty?: number | undefined;
  readonly logit_bias?: readonly NativeLogitBias[] | undefined;
  /** So many likeliest alternatives are told with each token; left out: no log-probabilities at all. */
  readonly top_logprobs?: number | undefined;
  /** Number of an adapter that was added; left out: the model as it is. */
  readonly adapter?: number | undefined;
  /** Draws no token before `extend` lets it go; left out: false. */
  readonly held?: boolean | undefined;
  /** With `held`: its first rows come by `loadKv`; left out: false. */
  readonly awaits_kv?: boolean | undefined;
  /** JSON of what the answer must look like, see sllm_request; left out: anything. */
  readonly constraint?: string | undefined;
}

/** Header and host copy of a LoRA adapter; see sllm_adapter_params. */
export interface NativeAdapterParams {
  /** Its number among the engine's, from 1. */
  readonly adapter: number;
  readonly header_path: string;
  readonly weights_path: string;
  readonly weights_bytes: bigint;
}

export interface NativeLogitBias {
  readonly token: number;
  readonly bias: number;
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
    const uploaded_bytes = toSafeNumber(info.uploaded_bytes, "number of uploaded bytes");
    const kv_token_bytes = toSafeNumber(info.kv_token_bytes, "bytes of a token in the KV cache");
    return { ...info, uploaded_bytes, kv_token_bytes };
  }

  /** sllm_engine_activity_get: what it is at. Never waits for a step. Any thread. */
  activity(): NativeEngineActivity {
    const out = engineActivity.allocate();
    const status = this.#binding.calls.sllm_engine_activity_get(this.#open(), out);
    checkStatus("sllm_engine_activity_get", this.#binding, status);
    const { struct_size: _, computing, ...counts } = engineActivity.decode(new DataView(out.buffer));
    const number = (value: bigint) => toSafeNumber(value, "count of an engine");
    return {
      ...counts,
      kv_tokens: number(counts.kv_tokens),
      kv_used_tokens: number(counts.kv_used_tokens),
      steps: number(counts.steps),
      computed_tokens: number(counts.computed_tokens),
      progress: number(counts.progress),
      computing: computing === 1,
    };
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

  /** sllm_chat_open: see the header for the request. Any thread. */
  openChat(request: string): NativeChat {
    return new NativeChat(this.#binding, this.#open(), request);
  }

  /** sllm_engine_tokenize. Any thread. */
  tokenize(text: string, options: { add_special: boolean; parse_special: boolean }): Int32Array {
    const { calls } = this.#binding;
    const bytes = encoder.encode(text);
    const given = bytes.length === 0 ? null : bytes;
    const [special, parsed] = [options.add_special ? 1 : 0, options.parse_special ? 1 : 0];
    return fillTokens("sllm_engine_tokenize", this.#binding, bytes.length, (out, cap, n) =>
      calls.sllm_engine_tokenize(this.#open(), given, bytes.length, special, parsed, out, cap, n),
    );
  }

  /** sllm_engine_tokenize_pair. Any thread. */
  tokenizePair(query: string, document: string): Int32Array {
    const { calls } = this.#binding;
    const [asked, about] = [encoder.encode(query), encoder.encode(document)];
    const [askedOrNone, aboutOrNone] = [asked.length === 0 ? null : asked, about.length === 0 ? null : about];
    return fillTokens(
      "sllm_engine_tokenize_pair",
      this.#binding,
      asked.length + about.length,
      (out, cap, n) =>
        calls.sllm_engine_tokenize_pair(
          ...([this.#open(), askedOrNone, asked.length, aboutOrNone, about.length, out, cap, n] as const),
        ),
    );
  }

  /** sllm_engine_submit to an engine that embeds. `dimensions` 0: all. Any thread. */
  embed(request: {
    readonly request: number;
    readonly prompt: Int32Array;
    readonly dimensions: number;
  }): void {
    using memory = new CallMemory(this.#binding);
    const encoded = requestStruct.encode({
      request: BigInt(request.request),
      prompt: memory.address(request.prompt),
      n_prompt: BigInt(request.prompt.length),
      dimensions: request.dimensions,
    });
    const status = this.#binding.calls.sllm_engine_submit(this.#open(), encoded);
    checkStatus("sllm_engine_submit", this.#binding, status);
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
    const constraint = encoder.encode(request.constraint ?? "");
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
      typical_p: request.typical_p ?? 1,
      repeat_penalty: request.repeat_penalty ?? 1,
      repeat_last_n: request.repeat_last_n ?? 0,
      presence_penalty: request.presence_penalty ?? 0,
      frequency_penalty: request.frequency_penalty ?? 0,
      logprobs: request.top_logprobs === undefined ? 0 : request.top_logprobs + 1,
      logit_bias: memory.address(encodeBias(request.logit_bias ?? [])),
      n_logit_bias: BigInt(request.logit_bias?.length ?? 0),
      constraint: memory.address(constraint),
      constraint_bytes: BigInt(constraint.length),
      resume: memory.address(request.resume ?? new Int32Array()),
      n_resume: BigInt(request.resume?.length ?? 0),
      adapter: request.adapter ?? 0,
      held: request.held === true ? 1 : 0,
      awaits_kv: request.awaits_kv === true ? 1 : 0,
    });
    const status = this.#binding.calls.sllm_engine_submit(this.#open(), encoded);
    checkStatus("sllm_engine_submit", this.#binding, status);
  }

  /** sllm_engine_add_adapter: blocks until the adapter's weights are copied. Any thread. */
  addAdapter(params: NativeAdapterParams): void {
    using memory = new CallMemory(this.#binding);
    const encoded = adapterParams.encode({
      ...params,
      header_path: memory.cString(params.header_path),
      weights_path: memory.cString(params.weights_path),
    });
    const status = this.#binding.calls.sllm_engine_add_adapter(this.#open(), encoded);
    checkStatus("sllm_engine_add_adapter", this.#binding, status);
  }

  /** sllm_engine_remove_adapter. Any thread. */
  removeAdapter(adapter: number): void {
    const status = this.#binding.calls.sllm_engine_remove_adapter(this.#open(), adapter);
    checkStatus("sllm_engine_remove_adapter", this.#binding, status);
  }

  /** sllm_engine_cancel; false when the request has ended. Any thread. */
  cancel(request: number): boolean {
    const status = this.#binding.calls.sllm_engine_cancel(this.#open(), BigInt(request));
    if (status === statuses.SLLM_E_NOT_FOUND) return false;
    checkStatus("sllm_engine_cancel", this.#binding, status);
    return true;
  }

  /** sllm_engine_hold: a HELD event follows; false when the request has ended. Any thread. */
  hold(request: number): boolean {
    const status = this.#binding.calls.sllm_engine_hold(this.#open(), BigInt(request));
    if (status === statuses.SLLM_E_NOT_FOUND) return false;
    checkStatus("sllm_engine_hold", this.#binding, status);
    return true;
  }

  /** sllm_engine_extend: more output of a held request; `go` lets it go. False when it has ended. Any thread. */
  extend(request: number, tokens: Int32Array, go: boolean): boolean {
    const given = tokens.length === 0 ? null : tokens;
    const { sllm_engine_extend } = this.#binding.calls;
    const status = sllm_engine_extend(this.#open(), BigInt(request), given, tokens.length, go ? 1 : 0);
    if (status === statuses.SLLM_E_NOT_FOUND) return false;
    checkStatus("sllm_engine_extend", this.#binding, status);
    return true;
  }

  /** sllm_engine_save_kv: a KV event follows; false when the request has ended. Any thread. */
  saveKv(request: number, path: string, from: number, to: number): boolean {
    const { sllm_engine_save_kv } = this.#binding.calls;
    const status = sllm_engine_save_kv(this.#open(), BigInt(request), cString(path), from, to);
    if (status === statuses.SLLM_E_NOT_FOUND) return false;
    checkStatus("sllm_engine_save_kv", this.#binding, status);
    return true;
  }

  /** sllm_engine_load_kv: a KV event follows; false when the request has ended. Any thread. */
  loadKv(
    request: number,
    path: string,
    part: { readonly from: number; readonly to: number; readonly all: number; readonly digest: string },
  ): boolean {
    const { from, to, all, digest } = part;
    const { sllm_engine_load_kv } = this.#binding.calls;
    const number = BigInt(request);
    const status = sllm_engine_load_kv(
      this.#open(),
      number,
      cString(path),
      from,
      to,
      all,
      BigInt(`0x${digest}`),
    );
    if (status === statuses.SLLM_E_NOT_FOUND) return false;
    checkStatus("sllm_engine_load_kv", this.#binding, status);
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

function encodeBias(entries: readonly NativeLogitBias[]): Uint8Array {
  const encoded = new Uint8Array(new ArrayBuffer(entries.length * logitBias.bytes));
  for (const [i, entry] of entries.entries())
    encoded.set(logitBias.encode({ ...entry }), i * logitBias.bytes);
  return encoded;
}
