/** Reads the data of server-sent events from a response body, with a bound on what one event may hold. */
import { createParser } from "eventsource-parser";
import { limits } from "../../schema/limits.ts";

/**
 * Yields the `data` of each event. The body is cancelled, and with it the connection closed, when the reader stops
 * early or the signal aborts; an abort ends the iteration without an error. An event beyond the bound throws.
 */
export async function* readEventStream(
  body: ReadableStream<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<string> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let received: string[] = [];
  let problem: Error | null = null;
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
      yield* received;
    }
  } finally {
    signal.removeEventListener("abort", leave);
    leave();
  }
}

/** A connection that is broken already needs no closing. */
function ignoreBrokenConnection(): void {}
