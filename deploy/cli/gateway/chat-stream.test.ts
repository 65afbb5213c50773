/** Reading an answer's event stream, however the network cuts it. */
import { describe, expect, test } from "bun:test";
import { formatEventId } from "../../../schema/ids.ts";
import { encodeSseComment, encodeSseFrame } from "../../../schema/sse.ts";
import { type ChatEvent, ChatReader } from "./chat-stream.ts";

const generation_id = "0123456789abcdef0123456789abcdef";
const id = formatEventId({ generation_id, worker_id: "w-0123456789abcdef", choice: 0, last_token_index: 1 });

function chunk(delta: object, finish_reason: string | null = null, usage?: object) {
  const choices = usage === undefined ? [{ index: 0, delta, logprobs: null, finish_reason }] : [];
  const head = { id: "chatcmpl-1", object: "chat.completion.chunk", created: 1, model: "m" };
  return JSON.stringify({ ...head, choices, ...(usage === undefined ? {} : { usage }) });
}

const stream = [
  encodeSseComment('{"state":"loading","eta_ms":840}'),
  encodeSseComment("keep-alive"),
  encodeSseComment("{not ours}"),
  encodeSseFrame({ data: chunk({ role: "assistant" }), id }),
  encodeSseFrame({ data: chunk({ content: "Tö be" }), id }),
  encodeSseFrame({ data: chunk({ content: ", or" }), id }),
  encodeSseFrame({ data: chunk({}, "length"), id }),
  encodeSseFrame({ data: chunk({}, null, { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 }), id }),
  encodeSseFrame({ data: "[DONE]" }),
].join("");

const expected: ChatEvent[] = [
  { type: "waiting", state: "loading", eta_ms: 840 },
  { type: "text", text: "Tö be" },
  { type: "text", text: ", or" },
  { type: "end", finish_reason: "length", completion_tokens: 2, generation_id },
];

describe("the reader of an answer", () => {
  test("yields what it waits for, the texts, and one end with usage and id", () => {
    const reader = new ChatReader();
    expect(reader.read(stream)).toEqual(expected);
    expect(reader.isDone).toBe(true);
  });

  test("does not care where the stream is cut", () => {
    for (const size of [1, 2, 7, 64]) {
      const reader = new ChatReader();
      const events: ChatEvent[] = [];
      for (let at = 0; at < stream.length; at += size)
        events.push(...reader.read(stream.slice(at, at + size)));
      expect(events).toEqual(expected);
    }
  });

  test("throws an error inside the stream with its code and hint", () => {
    const error = {
      message: "The engine ended.",
      type: "server_error",
      param: null,
      code: "engine_failed",
      hint: "H",
    };
    const frame = encodeSseFrame({ data: JSON.stringify({ error }) });
    expect(() => new ChatReader().read(frame)).toThrow("The engine ended. (engine_failed)");
  });

  test("ignores what comes after the end", () => {
    const reader = new ChatReader();
    reader.read(stream);
    expect(reader.read(encodeSseFrame({ data: chunk({ content: "more" }) }))).toEqual([]);
  });
});
