/** What every call of the library needs afterwards: status to error, text of any length, created handles. */
import { SllmNativeError, toSafeNumber } from "./errors.ts";
import { statuses } from "./sllm-structs.ts";
import type { NativeBinding, NativeHandle } from "./symbols.ts";

/** First guess for texts that the library fills; it tells the size when this does not suffice. */
const guessBytes = 64 * 1024;
const decoder = new TextDecoder();

/** Throws SllmNativeError with the library's text when the status is a failure. Call it before any other call. */
export function checkStatus(call: string, binding: NativeBinding, status: number): void {
  if (status >= 0) return;
  throw new SllmNativeError(call, status, lastError(binding));
}

/** The calling thread's last failure text. */
function lastError(binding: NativeBinding): string {
  const out = new Uint8Array(4096);
  const length = toSafeNumber(binding.calls.sllm_last_error(out, out.byteLength), "length of an error text");
  return decoder.decode(out.subarray(0, Math.min(length, out.byteLength - 1)));
}

/** Calls until the text fits: a size that was too small is answered with the size that is needed. */
export function fillText(
  call: string,
  binding: NativeBinding,
  fill: (out: Uint8Array, cap: number, needed: BigUint64Array) => number,
  guess_bytes: number = guessBytes,
): string {
  const needed = new BigUint64Array(1);
  for (let cap = guess_bytes; ; ) {
    const out = new Uint8Array(cap);
    const status = fill(out, cap, needed);
    const bytes = toSafeNumber(needed[0] ?? 0n, "length of a text");
    if (status === statuses.SLLM_E_BUFFER_TOO_SMALL && bytes > cap) {
      cap = bytes;
      continue;
    }
    checkStatus(call, binding, status);
    return decoder.decode(out.subarray(0, bytes));
  }
}

/** Calls until the tokens of `text_bytes` bytes of text fit; a token is rarely shorter than a byte. */
export function fillTokens(
  call: string,
  binding: NativeBinding,
  text_bytes: number,
  fill: (out: Int32Array, cap: number, count: BigUint64Array) => number,
): Int32Array {
  const count = new BigUint64Array(1);
  for (let cap = text_bytes + 16; ; ) {
    const out = new Int32Array(cap);
    const status = fill(out, cap, count);
    const n = toSafeNumber(count[0] ?? 0n, "number of tokens");
    if (status === statuses.SLLM_E_BUFFER_TOO_SMALL && n > cap) {
      cap = n;
      continue;
    }
    checkStatus(call, binding, status);
    return out.subarray(0, n);
  }
}

/** The handle that a `*_create` has just written. */
export function createdHandle(call: string, out: BigUint64Array): NativeHandle {
  const value = out[0];
  if (value === undefined || value === 0n) throw new Error(`${call} succeeded without a handle`);
  return value as NativeHandle;
}
