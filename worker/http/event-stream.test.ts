import { expect, test } from "bun:test";
import { limits } from "../../schema/limits.ts";
import { ManualClock } from "../../test/support/manual-clock.ts";
import type { EventReader } from "../ports.ts";
import { eventStream } from "./event-stream.ts";

class ManualReader implements EventReader<{ n: number }> {
  closed = 0;
  #waiting: ((event: { n: number } | null) => void) | null = null;

  next(): Promise<{ n: number } | null> {
    return new Promise((resolve) => {
      this.#waiting = resolve;
    });
  }

  give(event: { n: number } | null): void {
    this.#waiting?.(event);
  }

  close(): void {
    this.closed++;
    this.give(null);
  }
}

async function readChunk(body: ReadableStreamDefaultReader<Uint8Array>): Promise<string | null> {
  const { done, value } = await body.read();
  return done ? null : new TextDecoder().decode(value);
}

function open() {
  const clock = new ManualClock();
  const reader = new ManualReader();
  const client = new AbortController();
  const response = eventStream(reader, clock, client.signal);
  const body = response.body?.getReader();
  if (!body) throw new Error("no body");
  return { clock, reader, client, response, body };
}

test("events come as frames, silence as comments, the end as the end", async () => {
  const { clock, reader, response, body } = open();
  expect(response.headers.get("content-type")).toContain("text/event-stream");
  expect(await readChunk(body)).toBe(": open\n\n");
  const first = readChunk(body);
  await clock.advance(0);
  reader.give({ n: 1 });
  expect(await first).toBe('data: {"n":1}\n\n');
  const quiet = readChunk(body);
  await clock.advance(limits.stream_beat_ms);
  expect(await quiet).toBe(": keep-alive\n\n");
  const last = readChunk(body);
  await clock.advance(0);
  reader.give({ n: 2 });
  expect(await last).toBe('data: {"n":2}\n\n');
  const end = readChunk(body);
  await clock.advance(0);
  reader.give(null);
  expect(await end).toBeNull();
  expect(reader.closed).toBe(1);
});

test("a client that cancels the body closes the reader", async () => {
  const { reader, body } = open();
  await readChunk(body);
  await body.cancel();
  expect(reader.closed).toBeGreaterThanOrEqual(1);
});

test("a client that goes away closes the reader, even while nothing is written", async () => {
  const { clock, reader, client, body } = open();
  await readChunk(body);
  const pending = readChunk(body);
  await clock.advance(0);
  client.abort();
  expect(reader.closed).toBeGreaterThanOrEqual(1);
  expect(await pending).toBeNull();
});
