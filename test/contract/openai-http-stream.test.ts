/** Streams of the public API, as clients rely on them: shape, ids, comments, errors, leaving, slow readers. */
import { describe, expect, test } from "bun:test";
import { chatChunk, completionResponse } from "../../schema/api/answers.ts";
import { errorBody, SllmError } from "../../schema/error.ts";
import { parseEventId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import { eventually } from "../support/eventually.ts";
import { GatewayScene } from "../support/gateway-scene.ts";
import { ManualClock } from "../support/manual-clock.ts";
import { readError } from "../support/read-error.ts";
import { done, gate, someLoadTimings, tokens, unreachable } from "../support/scripted-worker.ts";
import { collectSse, readSse } from "../support/sse-client.ts";

/** Data of the events, parsed; `[DONE]` as it is. */
async function chunksOf(response: Response) {
  const events = (await collectSse(response)).filter((e) => e.kind === "event");
  return events.map((e) => (e.data === "[DONE]" ? e.data : JSON.parse(e.data)));
}

describe("a streamed chat", () => {
  test("opens with the role, carries the text, ends with a reason and [DONE]", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.warm();
    const response = await scene.chat(model.id, { stream: true });
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
    expect(response.headers.get("cache-control")).toContain("no-transform");
    expect(response.headers.get("x-accel-buffering")).toBe("no");
    expect(response.headers.get("x-sllm-cold")).toBe("hit");

    const all = await chunksOf(response);
    expect(all.pop()).toBe("[DONE]");
    const chunks = all.map((c) => chatChunk.parse(c));
    expect(chunks.map((c) => c.choices[0]?.delta)).toEqual([
      { role: "assistant", content: "" },
      { content: "Hello" },
      { content: " world" },
      {},
    ]);
    expect(chunks.map((c) => c.choices[0]?.finish_reason)).toEqual([null, null, null, "stop"]);
    expect(chunks.every((c) => c.usage === undefined)).toBe(true);
    const generation = response.headers.get("x-sllm-generation");
    expect(new Set(chunks.map((c) => `${c.id} ${c.created} ${c.model}`)).size).toBe(1);
    expect(chunks[0]?.id).toBe(`chatcmpl-${generation}`);
  });

  test("numbers every event by generation, worker and last token, the end being one beyond", async () => {
    const scene = new GatewayScene();
    const { model, worker } = await scene.warm();
    scene.workers.onGenerate = () => [
      { type: "started", prompt_tokens: 5 },
      tokens(0, ["a", "b", "c"]),
      tokens(3, [""]),
      tokens(4, ["d"]),
      done(5, "!"),
    ];
    const response = await scene.chat(model.id, { stream: true });
    const generation_id = response.headers.get("x-sllm-generation") ?? "";
    const events = (await collectSse(response)).filter((e) => e.kind === "event" && e.data !== "[DONE]");
    expect(events.map((e) => parseEventId(e.id ?? ""))).toEqual(
      [-1, 2, 4, 5].map((last_token_index) => ({
        generation_id,
        worker_id: worker.worker_id,
        choice: 0,
        last_token_index,
      })),
    );
    const deltas = events.map((e) => chatChunk.parse(JSON.parse(e.data)).choices[0]?.delta.content);
    expect(deltas).toEqual(["", "abc", "d", "!"]);
  });

  test("ends with the usage when asked, and says null until then", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.warm();
    const options = { stream: true, stream_options: { include_usage: true } };
    const chunks = await chunksOf(await scene.chat(model.id, options));
    expect(chunks.pop()).toBe("[DONE]");
    const usage = { prompt_tokens: 5, completion_tokens: 2, total_tokens: 7 };
    expect(chunks.pop()).toMatchObject({ choices: [], usage });
    expect(chunks.every((c) => c.usage === null)).toBe(true);
  });

  test("of the text API has text choices and no role", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.warm();
    const response = await scene.post("/v1/completions", { model: model.id, prompt: "Once", stream: true });
    const chunks = await chunksOf(response);
    expect(chunks.pop()).toBe("[DONE]");
    const parsed = chunks.map((c) => completionResponse.parse(c));
    expect(parsed.map((c) => c.choices[0]?.text)).toEqual(["Hello", " world", ""]);
    expect(parsed.at(-1)?.choices[0]?.finish_reason).toBe("stop");
  });

  test("that fails in the middle and cannot go on ends with an error event and without [DONE]", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.warm();
    scene.workers.onGenerate = function* () {
      yield { type: "started", prompt_tokens: 5 };
      yield tokens(0, ["Hello"]);
      unreachable();
    };
    const chunks = await chunksOf(await scene.chat(model.id, { stream: true }));
    const { error } = errorBody.parse(chunks.at(-1));
    expect(error).toMatchObject({ code: "generation_lost", type: "server_error" });
    expect(chunks.slice(0, -1).map((c) => c.choices[0].delta.content)).toEqual(["", "Hello"]);
  });

  test("whose worker skips a token fails instead of leaving a hole, and is cancelled there", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.warm();
    scene.workers.onGenerate = () => [
      { type: "started", prompt_tokens: 5 },
      tokens(0, ["a"]),
      tokens(2, ["c"]),
      done(3),
    ];
    const response = await scene.chat(model.id, { stream: true });
    const chunks = await chunksOf(response);
    expect(errorBody.parse(chunks.at(-1)).error.code).toBe("generation_lost");
    expect(scene.workers.cancels).toEqual([response.headers.get("x-sllm-generation") ?? ""]);
  });

  test("that is refused while warm gets the refusal's status", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.warm();
    scene.workers.onGenerate = () => {
      throw new SllmError("context_length_exceeded", "The prompt has 200 tokens, the context 128.", {
        param: "messages",
      });
    };
    expect(await readError(await scene.chat(model.id, { stream: true }))).toMatchObject({
      status: 400,
      code: "context_length_exceeded",
      param: "messages",
    });
  });

  test("of a cold model says at once what it waits for, then streams", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.ready();
    const loaded = gate();
    scene.workers.onLoad = async function* () {
      yield { type: "progress", bytes_done: 10, bytes_total: 100, eta_ms: 840 };
      await loaded.passed;
      yield { type: "ready", timings: someLoadTimings };
    };
    const response = await scene.chat(model.id, { stream: true });
    expect(response.headers.get("x-sllm-cold")).toBe("cold");
    const deltas: string[] = [];
    const comments: unknown[] = [];
    for await (const event of readSse(response)) {
      if (event.kind === "comment") {
        comments.push(JSON.parse(event.data));
        if (comments.some((c) => JSON.stringify(c).includes("840"))) loaded.open();
      } else if (event.data !== "[DONE]") deltas.push(JSON.parse(event.data).choices[0].delta.content ?? "");
    }
    expect(comments[0]).toMatchObject({ state: "loading" });
    expect(comments).toContainEqual({
      state: "loading",
      position: 1,
      eta_ms: 840,
      bytes_done: 10,
      bytes_total: 100,
    });
    expect(deltas.join("")).toBe("Hello world");
  });

  test("that is silent for long carries comments that say what it does", async () => {
    const clock = new ManualClock();
    const scene = new GatewayScene({ clock });
    const { model } = await scene.warm();
    const finish = gate();
    scene.workers.onGenerate = async function* () {
      yield { type: "started", prompt_tokens: 5 };
      await finish.passed;
      yield* [tokens(0, ["late"]), done(1)];
    };
    const received = collectSse(await scene.chat(model.id, { stream: true }));
    await clock.advance(3 * limits.sse_keep_alive_ms);
    finish.open();
    const comments = (await received).filter((e) => e.kind === "comment");
    expect(comments.map((c) => JSON.parse(c.data))).toEqual(Array(3).fill({ state: "running" }));
    await clock.advance(limits.record_gather_ms);
    expect(clock.sleeping).toBe(0);
  });

  test("that a client leaves is cancelled at the worker at once", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.warm();
    const cancelled = gate();
    scene.workers.onCancel = () => {
      cancelled.open();
      return true;
    };
    scene.workers.onGenerate = async function* (_request, signal) {
      yield { type: "started", prompt_tokens: 5 };
      yield tokens(0, ["Hello"]);
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
    };
    const response = await scene.chat(model.id, { stream: true });
    for await (const event of readSse(response)) if (event.data.includes("Hello")) break;
    await cancelled.passed;
    expect(scene.workers.open).toBe(0);
    const generation_id = response.headers.get("x-sllm-generation") ?? "";
    expect(scene.workers.cancels).toEqual([generation_id]);
    const row = await eventually("the row ends", async () => {
      const found = await scene.store.getGeneration(generation_id);
      return found?.finished_at ? found : null;
    });
    expect(row).toMatchObject({ state: "cancelled", completion_tokens: 1, finish_reason: null });
  });

  test("whose request is aborted is cancelled even when the body is never read", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.warm();
    scene.workers.onGenerate = async function* (_request, signal) {
      yield { type: "started", prompt_tokens: 5 };
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
    };
    const client = new AbortController();
    const response = await scene.chat(model.id, { stream: true }, { signal: client.signal });
    client.abort();
    await eventually("the cancel arrives", () => scene.workers.cancels.length === 1);
    expect(scene.workers.cancels).toEqual([response.headers.get("x-sllm-generation") ?? ""]);
    expect(scene.workers.open).toBe(0);
  });

  test("with a slow reader is read from the worker no further than the buffer holds", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.warm();
    const text = "x".repeat(64 * 1024);
    let sent = 0;
    scene.workers.onGenerate = function* () {
      yield { type: "started", prompt_tokens: 5 };
      for (; sent < 100; sent++) yield tokens(sent, [text]);
      yield done(100);
    };
    const response = await scene.chat(model.id, { stream: true });
    await eventually("the buffer is full", () => sent * text.length > 0.9 * limits.stream_buffer_bytes);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(sent * text.length).toBeLessThanOrEqual(1.1 * limits.stream_buffer_bytes);
    const chunks = await chunksOf(response);
    expect(chunks.at(-1)).toBe("[DONE]");
    expect(sent).toBe(100);
  });
});
