/** Answers with the events of a reader as server-sent events, with comments while nothing happens. */
import { limits } from "../../schema/limits.ts";
import { encodeSseComment, encodeSseFrame, sseHeaders } from "../../schema/sse.ts";
import type { Clock, EventReader } from "../ports.ts";

const encoder = new TextEncoder();

/**
 * The response of a stream: pulls one event after the other, so a slow client slows only its own reader. The reader
 * is closed when the stream ends or the client leaves, whichever way the runtime reports it.
 */
export function eventStream<T>(reader: EventReader<T>, clock: Clock, left: AbortSignal): Response {
  let pending: Promise<T | null> | null = null;
  left.addEventListener("abort", () => reader.close(), { once: true });
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      // The first bytes make the runtime send the headers.
      controller.enqueue(encoder.encode(encodeSseComment("open")));
    },
    async pull(controller) {
      pending ??= reader.next();
      const event = await orQuiet(pending, clock);
      if (event === quiet) {
        controller.enqueue(encoder.encode(encodeSseComment("keep-alive")));
        return;
      }
      pending = null;
      if (event === null) {
        reader.close();
        controller.close();
      } else controller.enqueue(encoder.encode(encodeSseFrame({ data: JSON.stringify(event) })));
    },
    cancel() {
      reader.close();
    },
  });
  return new Response(body, { headers: sseHeaders });
}

const quiet = Symbol("nothing happened for a while");

async function orQuiet<T>(event: Promise<T>, clock: Clock): Promise<T | typeof quiet> {
  const timer = new AbortController();
  const silence = clock.sleep(limits.stream_beat_ms, timer.signal).then((): typeof quiet => quiet);
  const first = await Promise.race([event, silence]);
  timer.abort();
  return first;
}
