/**
 * Reads a GGUF header front to back out of a source, in blocks. Nothing is believed before it is checked: every
 * length is compared with what is left of the file and of the header's bound, so memory stays below that bound.
 */
import { SllmError } from "../../../schema/error.ts";
import { limits } from "../../../schema/limits.ts";
import type { ByteSource } from "./byte-source.ts";

const firstBlockBytes = 256 * 1024;

/** A text from a file as it can stand in a message: quoted, escaped and cut. */
export function quoted(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}...` : text);
}

export class HeaderCursor {
  readonly #source: ByteSource;
  readonly #end: number;
  #buffer = new Uint8Array(0);
  #view = new DataView(this.#buffer.buffer);
  #have = 0;
  #at = 0;

  constructor(source: ByteSource) {
    this.#source = source;
    this.#end = Math.min(source.bytes, limits.gguf_header_bytes);
  }

  /** Offset of the next byte in the file. */
  get offset(): number {
    return this.#at;
  }

  /** `checkpoint_invalid` with the name of the file and the place. */
  invalid(problem: string, offset = this.#at): SllmError {
    return new SllmError("checkpoint_invalid", `${this.#source.name}: at byte ${offset}: ${problem}.`);
  }

  /** `checkpoint_unsupported` with the name of the file and the place. */
  unsupported(problem: string, offset = this.#at): SllmError {
    return new SllmError("checkpoint_unsupported", `${this.#source.name}: at byte ${offset}: ${problem}.`);
  }

  /** Makes the next `bytes` bytes readable or fails: the file is too short, or the header too long. */
  async need(bytes: number): Promise<void> {
    if (this.#at + bytes <= this.#have) return;
    this.require(bytes);
    await this.#fill(this.#at + bytes);
  }

  /** Fails unless `bytes` more bytes can belong to the header. Checked before loops and allocations. */
  require(bytes: number): void {
    if (this.#at + bytes <= this.#end) return;
    if (this.#at + bytes <= this.#source.bytes) {
      throw this.unsupported(`the header is longer than ${limits.gguf_header_bytes} bytes`);
    }
    throw this.invalid(`the file is cut off: ${this.#source.bytes} bytes are too few`);
  }

  u8(): number {
    const value = this.#view.getUint8(this.#at);
    this.#at += 1;
    return value;
  }

  u32(): number {
    const value = this.#view.getUint32(this.#at, true);
    this.#at += 4;
    return value;
  }

  /**
   * An unsigned 64-bit number. Beyond 2^53 it is rounded, and stays beyond 2^53: safe to compare with a bound,
   * and every use does that first. Negative numbers of the format arrive as huge ones.
   */
  u64(): number {
    const low = this.u32();
    return low + this.u32() * 2 ** 32;
  }

  skip(bytes: number): void {
    this.#at += bytes;
  }

  /** The bytes of the header from `start` to `end`, both behind the cursor. Valid until the next `need`. */
  slice(start: number, end: number): Uint8Array {
    return this.#buffer.subarray(start, end);
  }

  /** Length of a string that follows, checked against a bound. The string itself is not yet readable. */
  async stringLength(bound: number, what: string): Promise<number> {
    await this.need(8);
    const offset = this.#at;
    const length = this.u64();
    if (length > bound) throw this.invalid(`${what} has a length of ${length}, more than ${bound}`, offset);
    return length;
  }

  async #fill(until: number): Promise<void> {
    const target = Math.min(this.#end, Math.max(until, 2 * this.#have, firstBlockBytes));
    if (target > this.#buffer.length) {
      const grown = new Uint8Array(target);
      grown.set(this.#buffer.subarray(0, this.#have));
      this.#buffer = grown;
      this.#view = new DataView(grown.buffer);
    }
    await this.#source.read(this.#have, this.#buffer.subarray(this.#have, target));
    this.#have = target;
  }
}
