import { expect, test } from "bun:test";
import type { NativeEvent } from "../../native/bun-ffi-helpers/native.ts";
import { engineMessage } from "../../schema/cluster/engine.ts";
import { isFatal, toMessages } from "./events.ts";

const blank: NativeEvent = {
  request: 1,
  kind: 2,
  status: 0,
  token: 0,
  index: 0,
  text: "",
  vector: new Uint8Array(),
  logprobs: [],
  prompt_tokens: 0,
  cached_tokens: 0,
  queue_ms: 0,
  prefill_ms: 0,
  decode_ms: 0,
};
const token = (request: number, index: number, text: string): NativeEvent => ({
  ...blank,
  request,
  index,
  token: 100 + index,
  text,
});

test("the tokens of one drain become one message per request", () => {
  const messages = toMessages([token(1, 4, "a"), token(2, 0, "x"), token(1, 5, "b"), token(2, 1, "y")]);
  expect(messages).toEqual([
    {
      type: "tokens",
      request: 1,
      first_index: 4,
      tokens: [
        { token: 104, text: "a" },
        { token: 105, text: "b" },
      ],
    },
    {
      type: "tokens",
      request: 2,
      first_index: 0,
      tokens: [
        { token: 100, text: "x" },
        { token: 101, text: "y" },
      ],
    },
  ]);
});

test("a request's own order is kept: started, tokens, done", () => {
  const done: NativeEvent = {
    ...blank,
    kind: 3,
    status: 2,
    index: 1,
    text: "!",
    prompt_tokens: 7,
    decode_ms: 3,
  };
  const messages = toMessages([{ ...blank, kind: 1, prompt_tokens: 7 }, token(1, 0, "a"), done]);
  expect(messages.map((m) => m.type)).toEqual(["started", "tokens", "done"]);
  expect(messages[2]).toMatchObject({ finish_reason: "length", completion_tokens: 1, text: "!" });
  for (const message of messages) engineMessage.parse(message);
});

test("a held request says how far it is, and tokens after that make a message of their own", () => {
  const held: NativeEvent = { ...blank, kind: 6, index: 1, prompt_tokens: 7, cached_tokens: 3 };
  const messages = toMessages([token(1, 0, "a"), held, token(1, 1, "b")]);
  expect(messages.map((m) => m.type)).toEqual(["tokens", "held", "tokens"]);
  expect(messages[1]).toEqual({ type: "held", request: 1, completion_tokens: 1, cached_tokens: 3 });
  for (const message of messages) engineMessage.parse(message);
});

test("a number that is used again after its end begins a new message", () => {
  const done: NativeEvent = { ...blank, kind: 3, status: 1, index: 1 };
  const messages = toMessages([token(1, 0, "a"), done, { ...blank, kind: 1 }, token(1, 0, "b")]);
  expect(messages.map((m) => m.type)).toEqual(["tokens", "done", "started", "tokens"]);
});

test("a cancelled request and a failed engine carry their codes, and only the latter is fatal", () => {
  const cancelled: NativeEvent = { ...blank, kind: 4, status: -31, text: "cancelled" };
  const failed: NativeEvent = { ...blank, kind: 4, status: -32, text: "decode failed" };
  expect(toMessages([cancelled, failed])).toEqual([
    { type: "error", request: 1, error: { code: "cancelled", message: "cancelled" } },
    { type: "error", request: 1, error: { code: "engine_failed", message: "decode failed" } },
  ]);
  expect([isFatal(cancelled), isFatal(failed)]).toEqual([false, true]);
});
