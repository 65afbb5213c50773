/** Failures of the native library as errors: refused calls, and a library that cannot be used at all. */
import { type FailureName, failureName } from "./sllm-structs.ts";

/** A call that answered with a negative status. `message` is the library's own text. */
export class SllmNativeError extends Error {
  readonly call: string;
  readonly status: number;
  readonly status_name: FailureName;

  constructor(call: string, status: number, text: string) {
    super(text === "" ? `${call} failed with ${failureName(status)}` : text);
    this.name = "SllmNativeError";
    this.call = call;
    this.status = status;
    this.status_name = failureName(status);
  }
}

/** The shared library is not there, lacks something it needs, or has another ABI. The message says which and where. */
export class NativeLoadError extends Error {
  readonly path: string;

  constructor(path: string, reason: string, cause?: unknown) {
    super(
      `The native library ${path} cannot be used: ${reason}`,
      cause === undefined ? undefined : { cause },
    );
    this.name = "NativeLoadError";
    this.path = path;
  }
}

/** A 64-bit number of the library as a JavaScript number; throws when it would lose bits. */
export function toSafeNumber(value: bigint, what: string): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number)) throw new RangeError(`${what} is beyond 2^53: ${value}`);
  return number;
}
