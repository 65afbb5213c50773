/** Events of a native engine: the buffers that a drain fills, and what lies in them. */
import { toSafeNumber } from "./errors.ts";
import { event, eventKind, logprob as logprobStruct } from "./sllm-structs.ts";

const decoder = new TextDecoder();
const noBytes = new Uint8Array();

/** A token's bytes, perhaps part of a character, and its log-probability from the bare logits. */
export interface NativeLogprob {
  readonly token: number;
  readonly bytes: Uint8Array;
  readonly logprob: number;
}

/** sllm_event with its text; see the header for which members a kind fills. */
export interface NativeEvent {
  readonly request: number;
  readonly kind: (typeof eventKind)[keyof typeof eventKind];
  readonly status: number;
  readonly token: number;
  readonly index: number;
  readonly text: string;
  /** VECTOR: its values, 32-bit floating point in little-endian order. */
  readonly vector: Uint8Array;
  /** The token's own, then those of the likeliest; empty unless they were asked for. */
  readonly logprobs: readonly NativeLogprob[];
  readonly prompt_tokens: number;
  /** Of the prompt, found in the KV cache. */
  readonly cached_tokens: number;
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

/** Entries lie one after the other, each followed by its token's bytes. */
function decodeLogprobs(bytes: Uint8Array): NativeLogprob[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found: NativeLogprob[] = [];
  for (let at = 0; at < bytes.length; ) {
    const entry = logprobStruct.decode(view, at);
    at += logprobStruct.bytes + entry.piece_bytes;
    found.push({
      token: entry.token,
      bytes: bytes.slice(at - entry.piece_bytes, at),
      logprob: entry.logprob,
    });
  }
  return found;
}

/** The events of the last drain. */
export function decodeEvents(buffers: DrainBuffers): NativeEvent[] {
  const events: NativeEvent[] = [];
  const count = toSafeNumber(buffers.count[0] ?? 0n, "number of events");
  for (let i = 0; i < count; i++) {
    const found = event.decode(buffers.view, i * event.bytes);
    const textEnd = found.text_offset + found.text_bytes;
    const text = buffers.text.subarray(found.text_offset, textEnd);
    // One member of the struct with two names: bytes for TOKEN, a count otherwise.
    const isToken = found.kind === eventKind.SLLM_EVENT_TOKEN;
    const logprobs = buffers.text.subarray(textEnd, textEnd + (isToken ? found.logprob_bytes : 0));
    const isVector = found.kind === eventKind.SLLM_EVENT_VECTOR;
    events.push({
      request: toSafeNumber(found.request, "request number"),
      // The header defines no other kinds; one that came later would be of another ABI version.
      kind: found.kind as NativeEvent["kind"],
      status: found.status,
      token: found.token,
      index: found.index,
      text: text.length === 0 || isVector ? "" : decoder.decode(text),
      vector: isVector ? text.slice() : noBytes,
      logprobs: logprobs.length === 0 ? [] : decodeLogprobs(logprobs),
      prompt_tokens: found.prompt_tokens,
      cached_tokens: isToken ? 0 : found.logprob_bytes,
      queue_ms: found.queue_ms,
      prefill_ms: found.prefill_ms,
      decode_ms: found.decode_ms,
    });
  }
  return events;
}
