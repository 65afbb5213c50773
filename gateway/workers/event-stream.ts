/** Reads server-sent events from a response body, with a bound on what one event may hold. */
import { createParser } from "eventsource-parser";
import { limits } from "../../schema/limits.ts";

export interface EventReading<T> {
  /** Makes an event of the data of one; what it throws ends the reading. */
  readonly parse: (data: string) => T;
  /** True for the event that nothing follows. */
  readonly isLast: (event: T) => boolean;
}

/**
 * Yields the events up to the last one. The body is cancelled, and with it the connection closed, when the reader stops
 * before that or the signal aborts; an abort ends the iteration without an error. After the last event the end of the
 * body is read beside, so that the connection can serve the next request. An event beyond the bound throws.
 */
export async function* readEventStream<T>(
  body: ReadableStream<Uint8Array>,
  signal: AbortSignal,
  { parse, isLast }: EventReading<T>,
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
  try {
    while (!signal.aborted) {
      const { done, value } = await reader.read();
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
    signal.removeEventListener("abort", leave);
    if (isComplete && !signal.aborted) void readToEnd(reader).catch(ignoreBrokenConnection);
    else leave();
  }
}

/** Nothing but the end is due; whoever sends more, or no end, loses the connection. */
async function readToEnd(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
  const late = AbortSignal.timeout(limits.stream_end_ms);
  const leave = () => void reader.cancel().catch(ignoreBrokenConnection);
  late.addEventListener("abort", leave, { once: true });
  const { done } = await reader.read();
  late.removeEventListener("abort", leave);
  if (!done) leave();
}

/** A connection that is broken already needs no closing. */
function ignoreBrokenConnection(): void {}
