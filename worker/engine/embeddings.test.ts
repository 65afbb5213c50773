import { expect, test } from "bun:test";
import { SllmNativeError } from "../../native/bun-ffi-helpers/native.ts";
import { type EngineMessage, engineMessage } from "../../schema/cluster/engine.ts";
import { limits } from "../../schema/limits.ts";
import { Embeddings } from "./embeddings.ts";

const timings = { queue_ms: 1, prefill_ms: 2, decode_ms: 0 };

/** Embeddings over an engine that does what the test says, by the numbers it was given. */
class Scene {
  readonly given: { request: number; prompt: Int32Array; dimensions: number }[] = [];
  readonly cancelled: number[] = [];
  /** Requests that the engine still takes. */
  room = Number.POSITIVE_INFINITY;
  readonly embeddings = new Embeddings({
    embed: (request) => {
      if (this.room-- <= 0) throw new SllmNativeError("sllm_engine_submit", -4, "no room");
      this.given.push(request);
    },
    cancel: (request) => {
      this.cancelled.push(request);
      return true;
    },
  });

  start(request: number, count: number, dimensions = 0): void {
    const inputs = Array.from({ length: count }, () => Int32Array.of(1, 2));
    this.embeddings.start(request, inputs, dimensions);
  }

  /** What is told when the engine has computed these of its requests. */
  compute(...requests: number[]): EngineMessage[] {
    const messages = requests.flatMap((request): EngineMessage[] => [
      { type: "started", request, prompt_tokens: 2 },
      { type: "vectors", request, first_index: 0, vectors: [vectorOf(request)] },
      {
        type: "done",
        request,
        finish_reason: "stop",
        text: "",
        prompt_tokens: 2,
        completion_tokens: 0,
        timings,
      },
    ]);
    return this.embeddings.read(messages).map((message) => engineMessage.parse(message));
  }
}

const vectorOf = (request: number) => Buffer.from(new Float32Array([request]).buffer).toString("base64");

test("inputs become requests of their own and one stream in their order", () => {
  const scene = new Scene();
  scene.start(7, 3, 16);
  expect(scene.given.map(({ dimensions }) => dimensions)).toEqual([16, 16, 16]);
  expect(scene.compute(1, 2)).toEqual([
    { type: "started", request: 7, prompt_tokens: 6 },
    { type: "vectors", request: 7, first_index: 0, vectors: [vectorOf(1), vectorOf(2)] },
  ]);
  const done = { finish_reason: "stop", text: "", prompt_tokens: 6, completion_tokens: 0, timings } as const;
  expect(scene.compute(3)).toEqual([
    { type: "vectors", request: 7, first_index: 2, vectors: [vectorOf(3)] },
    { type: "done", request: 7, ...done },
  ]);
});

test("no more inputs are in the engine at once than its window, so that others get their turn", () => {
  const scene = new Scene();
  scene.start(1, limits.embedding_window + 2);
  expect(scene.given).toHaveLength(limits.embedding_window);
  scene.start(2, 1);
  expect(scene.given).toHaveLength(limits.embedding_window + 1);
  scene.compute(1);
  expect(scene.given).toHaveLength(limits.embedding_window + 2);
});

test("streams of several requests stay apart", () => {
  const scene = new Scene();
  scene.start(1, 1);
  scene.start(2, 1);
  const told = scene.compute(1, 2);
  expect(told.map((m) => ("request" in m ? [m.type, m.request] : []))).toEqual([
    ["started", 1],
    ["vectors", 1],
    ["done", 1],
    ["started", 2],
    ["vectors", 2],
    ["done", 2],
  ]);
});

test("a cancel reaches all inputs in the engine; one error is told and no more follow", () => {
  const scene = new Scene();
  scene.start(1, 3);
  expect(scene.embeddings.cancel(9)).toBe(false);
  expect(scene.embeddings.cancel(1)).toBe(true);
  expect(scene.cancelled).toEqual([1, 2, 3]);
  const error = { code: "cancelled", message: "the request was cancelled" } as const;
  const ends = [1, 2, 3].map((request) => ({ type: "error", request, error }) as const);
  expect(scene.embeddings.read(ends)).toEqual([{ type: "error", request: 1, error }]);
  expect(scene.embeddings.cancel(1)).toBe(false);
});

test("an engine without room refuses the request, at its begin or later, and nothing of it stays", () => {
  const scene = new Scene();
  scene.room = 1;
  expect(() => scene.start(1, 2)).toThrow("no room");
  expect(scene.cancelled).toEqual([1]);
  scene.room = limits.embedding_window;
  scene.start(2, limits.embedding_window + 1);
  const [, first = 0, second = 0] = scene.given.map(({ request }) => request);
  expect(scene.compute(first).at(-1)).toEqual({
    type: "error",
    request: 2,
    error: { code: "overloaded", message: expect.stringContaining("no room") },
  });
  expect(scene.compute(second)).toEqual([]);
});

test("messages that are long enough are not joined", () => {
  const scene = new Scene();
  scene.start(1, 2);
  const vector = "A".repeat(limits.vectors_message_bytes - 4);
  const messages = [1, 2].flatMap((request): EngineMessage[] => [
    { type: "vectors", request, first_index: 0, vectors: [vector] },
    {
      type: "done",
      request,
      finish_reason: "stop",
      text: "",
      prompt_tokens: 2,
      completion_tokens: 0,
      timings,
    },
  ]);
  const told = scene.embeddings.read(messages);
  expect(told.filter((message) => message.type === "vectors")).toHaveLength(2);
});
