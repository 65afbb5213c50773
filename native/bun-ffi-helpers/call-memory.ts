/** Memory that pointers inside parameter structs refer to: kept referenced until the call has returned. */
import type { NativeBinding, NativeBuffer } from "./symbols.ts";

const encoder = new TextEncoder();

/** UTF-8 with a NUL at its end. Refuses text that holds a NUL itself: the library would see it cut. */
export function cString(text: string): Uint8Array {
  if (text.includes("\0")) throw new RangeError("text for the native library holds a NUL character");
  return encoder.encode(`${text}\0`);
}

/** Use with `using`: what was given to it stays referenced until the end of the block, whatever the optimiser does. */
export class CallMemory implements Disposable {
  readonly #binding: NativeBinding;
  readonly #kept: NativeBuffer[] = [];

  constructor(binding: NativeBinding) {
    this.#binding = binding;
  }

  /** Address of a buffer; 0 for an empty one. */
  address(buffer: NativeBuffer): bigint {
    if (buffer.byteLength === 0) return 0n;
    this.#kept.push(buffer);
    return this.#binding.addressOf(buffer);
  }

  /** Address of NUL-terminated text. */
  cString(text: string): bigint {
    return this.address(cString(text));
  }

  [Symbol.dispose](): void {
    this.#kept.length = 0;
  }
}
