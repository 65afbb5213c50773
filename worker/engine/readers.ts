/**
 * What the messages of running answers get on their way out of the engine process: what each piece of text adds to its
 * message, and with `started` the prompt's tokens where they were asked for.
 */
import type { NativeChat } from "../../native/bun-ffi-helpers/native.ts";
import type { EngineMessage } from "../../schema/cluster/engine.ts";

type Reader = Pick<NativeChat, "feed"> & Disposable;

export interface OpenAnswer {
  /** Takes the answer apart; null when its text is the message. Disposed of when the request ends. */
  readonly reader: Reader | null;
  /** To be told with `started`; null when nobody asked. */
  readonly prompt: readonly number[] | null;
}

export class AnswerReaders {
  readonly #answers = new Map<number, OpenAnswer>();

  /** Follows a request until it ends; nothing to do for most. */
  open(request: number, answer: OpenAnswer): void {
    if (answer.reader !== null || answer.prompt !== null) this.#answers.set(request, answer);
  }

  /** The messages with what they add to the message that their answer is read into. */
  read(messages: readonly EngineMessage[]): readonly EngineMessage[] {
    return this.#answers.size === 0 ? messages : messages.map((message) => this.#readOne(message));
  }

  /** Ends a request's reader; nothing happens without one. */
  close(request: number): void {
    this.#answers.get(request)?.reader?.[Symbol.dispose]();
    this.#answers.delete(request);
  }

  /** Before the engine goes. */
  closeAll(): void {
    for (const request of [...this.#answers.keys()]) this.close(request);
  }

  #readOne(message: EngineMessage): EngineMessage {
    const answer = "request" in message ? this.#answers.get(message.request) : undefined;
    if (answer === undefined) return message;
    const { reader, prompt } = answer;
    switch (message.type) {
      case "started":
        // What resumed text adds was told by whoever generated it.
        if (message.resumed_text !== undefined) reader?.feed(message.resumed_text, false);
        return prompt === null ? message : { ...message, prompt: [...prompt] };
      case "tokens": {
        if (reader === null) return message;
        const text = message.tokens.map((token) => token.text).join("");
        return { ...message, delta: reader.feed(text, false) };
      }
      case "done": {
        const read = reader === null ? message : { ...message, delta: reader.feed(message.text, true) };
        this.close(message.request);
        return read;
      }
      case "error":
        this.close(message.request);
        return message;
      default:
        return message;
    }
  }
}
