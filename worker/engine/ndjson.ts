/** Lines of JSON over a byte stream: splitting with a bound, whatever the cuts between chunks. */
import { limits } from "../../schema/limits.ts";

/** Collects bytes and gives whole lines back. Throws when a line grows beyond its bound. */
export class LineSplitter {
  readonly #maxChars: number;
  readonly #decoder = new TextDecoder();
  #rest: string[] = [];
  #restChars = 0;

  constructor(maxChars: number = limits.engine_line_bytes) {
    this.#maxChars = maxChars;
  }

  /** The lines that became complete with these bytes, without their ends; empty lines are left out. */
  push(chunk: Uint8Array): string[] {
    const parts = this.#decoder.decode(chunk, { stream: true }).split("\n");
    const lines: string[] = [];
    for (const [i, part] of parts.entries()) {
      this.#rest.push(part);
      this.#restChars += part.length;
      if (this.#restChars > this.#maxChars)
        throw new RangeError(`a line exceeds ${this.#maxChars} characters`);
      if (i < parts.length - 1) lines.push(this.#take());
    }
    return lines.filter((line) => line !== "");
  }

  /** What came after the last line end. */
  flush(): string {
    this.#rest.push(this.#decoder.decode());
    return this.#take();
  }

  #take(): string {
    const line = this.#rest.length === 1 ? (this.#rest[0] ?? "") : this.#rest.join("");
    this.#rest = [];
    this.#restChars = 0;
    return line;
  }
}
