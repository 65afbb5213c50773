/** Reads server-sent events from a response body, with a bound on what one event may hold. */
import { createParser } from "eventsource-parser";
import { limits } from "../../schema/limits.ts";

export interface EventReading<T> {
  /** Makes an event of the data of one; what it throws ends the reading. */
  readonly parse: (data: string) => T;
  /** True for the event that nothing follows. */
  readonly isLast: (event: T) => boolean;
  /** Silence that counts as a broken connection, while somebody waits for an event; none if left out. */
  readonly silence_ms?: number;
  /** Called when most of that time is over. */
  readonly onQuiet?: () => void;
}

/** Looks in the time after which a stream counts as broken. A gateway that was stopped itself has not looked. */
const looks = 5;
/** Looks after which it is quiet: a beat is late then, and there is time left to ask why. */
const quietLooks = 3;

/**
 * Yields the events up to the last one. The body is cancelled, and with it the connection closed, when the reader stops
 * before that or the signal aborts; an abort ends the iteration without an error. After the last event the end of the
 * body is read beside, so that the connection can serve the next request. An event beyond the bound throws.
 */
export async function* readEventStream<T>(
  body: ReadableStream<Uint8Array>,
  signal: AbortSignal,
  { parse, isLast, silence_ms, onQuiet = () => {} }: EventReading<T>,
): AsyncGenerator<T> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let received: string[] = [];
  let problem: Error | null = null;
  let isComplete = false;
  const parser = createParser({
    maxBufferSize: limits.stream_buffer_bytes,
    onEvent: (event) => received.push(event.data),
    onError: (error) => {
      if (error.type === "max-buffer-size-exceeded") problem = error;
    },
  });
  // Cancelling the reader, not only the fetch, is what frees the connection on every runtime.
  const leave = () => void reader.cancel().catch(ignoreBrokenConnection);
  signal.addEventListener("abort", leave, { once: true });
  const watch = silence_ms === undefined ? null : new Watch(silence_ms, onQuiet, leave);
  try {
    while (!signal.aborted) {
      watch?.wait();
      const { done, value } = await reader.read();
      watch?.heard();
      if (watch?.isSilent === true) throw new SilentStream(`nothing was heard for ${silence_ms} ms`);
      if (done) return;
      received = [];
      parser.feed(decoder.decode(value, { stream: true }));
      if (problem !== null) throw problem;
      for (const data of received) {
        const event = parse(data);
        isComplete = isLast(event);
        yield event;
        if (isComplete) return;
      }
    }
  } finally {
    watch?.end();
    signal.removeEventListener("abort", leave);
    if (isComplete && !signal.aborted) void readToEnd(reader).catch(ignoreBrokenConnection);
    else leave();
  }
}

export class SilentStream extends Error {}

/** Counts looks while somebody waits. */
class Watch {
  isSilent = false;
  #isWaiting = false;
  #quiet = 0;
  readonly #pause_ms: number;
  readonly #onQuiet: () => void;
  readonly #onSilent: () => void;
  #timer: ReturnType<typeof setTimeout>;

  constructor(silence_ms: number, onQuiet: () => void, onSilent: () => void) {
    this.#pause_ms = silence_ms / looks;
    this.#onQuiet = onQuiet;
    this.#onSilent = onSilent;
    this.#timer = setTimeout(() => this.#look(), this.#pause_ms);
  }

  wait(): void {
    this.#isWaiting = true;
  }

  heard(): void {
    this.#isWaiting = false;
    this.#quiet = 0;
  }

  end(): void {
    clearTimeout(this.#timer);
  }

  #look(): void {
    this.#quiet = this.#isWaiting ? this.#quiet + 1 : 0;
    if (this.#quiet === quietLooks) this.#onQuiet();
    if (this.#quiet >= looks) {
      this.isSilent = true;
      this.#onSilent();
      return;
    }
    this.#timer = setTimeout(() => this.#look(), this.#pause_ms);
  }
}

/** Nothing but the end is due; whoever sends more, or no end, loses the connection. */
async function readToEnd(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
  const leave = () => void reader.cancel().catch(ignoreBrokenConnection);
  const late = setTimeout(leave, limits.stream_end_ms);
  try {
    const { done } = await reader.read();
    if (!done) leave();
  } finally {
    clearTimeout(late);
  }
}

/** A connection that is broken already needs no closing. */
function ignoreBrokenConnection(): void {}
