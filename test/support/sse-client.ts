/** Reads an event stream as a client would, comments included, with the time at which each part arrived. */
import { createParser } from "eventsource-parser";

export interface ReceivedEvent {
  readonly kind: "event" | "comment";
  readonly data: string;
  readonly id: string | undefined;
  readonly at_ms: number;
}

/** Yields events and comments until the stream ends. Leaving the loop closes the connection. */
export async function* readSse(response: Response): AsyncGenerator<ReceivedEvent> {
  if (!response.body) throw new Error("the response has no body");
  const received: ReceivedEvent[] = [];
  const parser = createParser({
    onEvent: ({ data, id }) => received.push({ kind: "event", data, id, at_ms: performance.now() }),
    onComment: (data) =>
      received.push({ kind: "comment", data: data.trim(), id: undefined, at_ms: performance.now() }),
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      parser.feed(value);
      yield* received.splice(0);
    }
  } finally {
    await reader.cancel();
  }
}

/** Everything a stream held, once it ended. */
export async function collectSse(response: Response): Promise<ReceivedEvent[]> {
  const all: ReceivedEvent[] = [];
  for await (const event of readSse(response)) all.push(event);
  return all;
}
