/** The readers of running answers: take each one's text apart as it comes, on its way out of the engine process. */

import type { NativeChat } from "../../native/bun-ffi-helpers/native.ts";
import type { EngineMessage } from "../../schema/cluster/engine.ts";

type Reader = Pick<NativeChat, "feed"> & Disposable;

export class AnswerReaders {
  readonly #readers = new Map<number, Reader>();

  /** Takes a reader over, until its request ends. */
  open(request: number, reader: Reader): void {
    this.#readers.set(request, reader);
  }

  /** The messages with what they add to the message that their answer is read into. */
  read(messages: readonly EngineMessage[]): readonly EngineMessage[] {
    return this.#readers.size === 0 ? messages : messages.map((message) => this.#readOne(message));
  }

  /** Ends a request's reader; nothing happens without one. */
  close(request: number): void {
    this.#readers.get(request)?.[Symbol.dispose]();
    this.#readers.delete(request);
  }

  /** Before the engine goes. */
  closeAll(): void {
    for (const request of [...this.#readers.keys()]) this.close(request);
  }

  #readOne(message: EngineMessage): EngineMessage {
    if (message.type !== "tokens" && message.type !== "done" && message.type !== "error") return message;
    const reader = this.#readers.get(message.request);
    if (reader === undefined) return message;
    if (message.type === "tokens") {
      const text = message.tokens.map((token) => token.text).join("");
      return { ...message, delta: reader.feed(text, false) };
    }
    const read = message.type === "done" ? { ...message, delta: reader.feed(message.text, true) } : message;
    this.close(message.request);
    return read;
  }
}
