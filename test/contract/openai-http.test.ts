/** What clients of the public API rely on, checked through `app.request()` against scripted workers. */
import { describe, expect, test } from "bun:test";
import { chatChunk, chatResponse, completionResponse } from "../../schema/api/chat.ts";
import { modelList, modelObject } from "../../schema/api/models.ts";
import { errorBody, SllmError } from "../../schema/error.ts";
import { parseEventId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import { eventually } from "../support/eventually.ts";
import { GatewayScene } from "../support/gateway-scene.ts";
import { done, gate, say, someLoadTimings, tokens, unreachable } from "../support/scripted-worker.ts";
import { collectSse, readSse } from "../support/sse-client.ts";

/** Data of the events, parsed; `[DONE]` as it is. */
async function chunksOf(response: Response) {
  const events = (await collectSse(response)).filter((e) => e.kind === "event");
  return events.map((e) => (e.data === "[DONE]" ? e.data : JSON.parse(e.data)));
}

async function errorOf(response: Response) {
  expect(response.headers.get("content-type")).toBe("application/json");
  const { error } = errorBody.parse(await response.json());
  return { status: response.status, code: error.code, param: error.param, message: error.message };
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

  test("numbers every event by generation, worker and last token", async () => {
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
      [-1, 2, 4, 4].map((last_token_index) => ({
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

  test("that fails in the middle ends with an error event and without [DONE]", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.warm();
    scene.workers.onGenerate = function* () {
      yield { type: "started", prompt_tokens: 5 };
      yield tokens(0, ["Hello"]);
      unreachable();
    };
    const chunks = await chunksOf(await scene.chat(model.id, { stream: true }));
    const { error } = errorBody.parse(chunks.at(-1));
    expect(error).toMatchObject({ code: "worker_unavailable", type: "server_error" });
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
    expect(await errorOf(await scene.chat(model.id, { stream: true }))).toMatchObject({
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
    expect(comments).toContainEqual({ state: "loading", eta_ms: 840, bytes_done: 10, bytes_total: 100 });
    expect(deltas.join("")).toBe("Hello world");
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

describe("an answer in one piece", () => {
  test("of the chat API has the message, the reason and the usage", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.warm();
    scene.workers.onGenerate = () => say(["Hello", ""], " there");
    const response = await scene.chat(model.id);
    expect(response.headers.get("content-type")).toContain("application/json");
    expect(response.headers.get("x-sllm-cold")).toBe("hit");
    const body = chatResponse.parse(await response.json());
    expect(body.choices[0]?.message).toEqual({ role: "assistant", content: "Hello there", refusal: null });
    expect(body.choices[0]?.finish_reason).toBe("stop");
    expect(body.usage).toEqual({ prompt_tokens: 5, completion_tokens: 2, total_tokens: 7 });
    expect(body.id).toBe(`chatcmpl-${response.headers.get("x-sllm-generation")}`);
  });

  test("of the text API has the text", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.warm();
    const response = await scene.post("/v1/completions", { model: model.id, prompt: ["Once"] });
    const body = completionResponse.parse(await response.json());
    expect(body.choices[0]).toMatchObject({ text: "Hello world", finish_reason: "stop" });
    expect(body.usage?.total_tokens).toBe(7);
  });

  test("of a cold model is held, and refused as loading with a time when that takes too long", async () => {
    const scene = new GatewayScene({ config: { hold_ms: 40 } });
    const { model } = await scene.ready();
    scene.workers.onLoad = async function* (_request, signal) {
      yield { type: "progress", bytes_done: 1, bytes_total: 9, eta_ms: 2_400 };
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
    };
    const response = await scene.chat(model.id);
    expect(response.headers.get("retry-after")).toBe("3");
    expect(response.headers.get("retry-after-ms")).toBe("2400");
    expect(await errorOf(response)).toMatchObject({ status: 503, code: "model_loading" });
  });

  test("that a client no longer waits for is cancelled at the worker", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.warm();
    scene.workers.onGenerate = async function* (_request, signal) {
      yield { type: "started", prompt_tokens: 5 };
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
    };
    const client = new AbortController();
    const answer = scene.chat(model.id, {}, { signal: client.signal });
    await eventually("the worker has it", () => scene.workers.open === 1);
    client.abort();
    expect((await answer).status).toBe(499);
    await eventually("the cancel arrives", () => scene.workers.cancels.length === 1);
  });
});

describe("what the worker is told", () => {
  test("follows the request, with OpenAI's defaults for what it leaves out", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.warm();
    const first = scene.workers.generations[0]?.request;
    expect(first).toMatchObject({
      epoch: 1,
      prompt: { kind: "messages", messages: [{ role: "user", content: "Hi" }] },
      sampling: { temperature: 1, top_k: 0, top_p: 1, min_p: 0 },
      stop: [],
      max_tokens: null,
      ignore_eos: false,
    });
    expect(first?.sampling.seed).toMatch(/^\d{1,20}$/);
    const content = [
      { type: "text", text: "a" },
      { type: "text", text: "b" },
    ];
    await scene.chat(model.id, {
      messages: [{ role: "system", content }],
      ...{ temperature: 0, top_p: 0.5, top_k: 3, min_p: 0.1, seed: -1 },
      ...{ stop: "END", max_tokens: 4, max_completion_tokens: 3, ignore_eos: true },
    });
    expect(scene.workers.generations[1]?.request).toMatchObject({
      prompt: { messages: [{ role: "system", content: "a\nb" }] },
      sampling: { temperature: 0, top_k: 3, top_p: 0.5, min_p: 0.1, seed: "18446744073709551615" },
      stop: ["END"],
      max_tokens: 3,
      ignore_eos: true,
    });
  });
});

describe("errors", () => {
  test("have OpenAI's envelope, name the field, and carry the request id", async () => {
    const scene = new GatewayScene({ config: { api_keys: ["a-key-of-the-tests"] } });
    const { model } = await scene.ready();
    const key = { authorization: "Bearer a-key-of-the-tests" };
    const chat = (body: unknown, headers: Record<string, string> = {}) =>
      scene.post("/v1/chat/completions", body, { ...key, ...headers });
    const valid = { model: model.id, messages: [{ role: "user", content: "Hi" }] };

    expect(await errorOf(await chat("{"))).toMatchObject({ status: 400, code: "invalid_request" });
    expect(await errorOf(await chat("[]"))).toMatchObject({ status: 400, code: "invalid_request" });
    expect(await errorOf(await chat({ ...valid, temperature: 3 }))).toMatchObject({
      status: 400,
      code: "invalid_request",
      param: "temperature",
    });
    const badMessage = { ...valid, messages: [{ role: "user", content: 7 }] };
    expect(await errorOf(await chat(badMessage))).toMatchObject({ status: 400, param: "messages.0.content" });
    expect(await errorOf(await chat({ ...valid, stop: ["x".repeat(limits.stop_bytes + 1)] }))).toMatchObject({
      status: 400,
      param: "stop.0",
    });
    expect(await errorOf(await chat({ ...valid, model: "nobody/here:1" }))).toMatchObject({
      status: 404,
      code: "model_not_found",
      param: "model",
    });
    expect(await errorOf(await chat(valid, { "content-type": "text/plain" }))).toMatchObject({ status: 415 });
    expect(await errorOf(await chat(valid, { authorization: "Bearer wrong" }))).toMatchObject({
      status: 401,
      code: "invalid_api_key",
    });
    expect(await errorOf(await scene.get("/v2/anything"))).toMatchObject({
      status: 404,
      code: "route_not_found",
    });
    const wrongMethod = await scene.get("/v1/chat/completions", key);
    expect(wrongMethod.headers.get("allow")).toBe("POST");
    expect(await errorOf(wrongMethod)).toMatchObject({ status: 405, code: "method_not_allowed" });

    const response = await chat({}, { "x-request-id": "mine-1" });
    expect(response.headers.get("x-request-id")).toBe("mine-1");
    expect(errorBody.parse(await response.json()).error.request_id).toBe("mine-1");
  });

  test.each([
    ["n", { n: 2 }],
    ["tools", { tools: [{ type: "function" }] }],
    ["response_format", { response_format: { type: "json_object" } }],
    ["logprobs", { logprobs: true }],
    ["presence_penalty", { presence_penalty: 0.5 }],
  ])("name the parameter %s that would change the answer and is not offered", async (param, fields) => {
    const scene = new GatewayScene();
    const { model } = await scene.ready();
    expect(await errorOf(await scene.chat(model.id, fields))).toMatchObject({
      status: 400,
      code: "unsupported_parameter",
      param,
    });
  });

  test("of a body beyond the limit are 413, whether its length is declared or not", async () => {
    const scene = new GatewayScene();
    const large = "x".repeat(limits.body_bytes + 1);
    const undeclared = await scene.post("/v1/chat/completions", large);
    expect(await errorOf(undeclared)).toMatchObject({ status: 413, code: "payload_too_large" });
    const declared = await scene.post("/v1/completions", "{}", { "content-length": String(large.length) });
    expect(await errorOf(declared)).toMatchObject({ status: 413 });
  });

  test("that are defects are 500 without their message, and logged with the request's id", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.warm();
    scene.workers.onGenerate = () => {
      throw new TypeError("secret path /root");
    };
    const error = await errorOf(await scene.chat(model.id));
    expect(error).toMatchObject({ status: 500, code: "internal" });
    expect(error.message).not.toContain("secret");
    expect(scene.log.some((l) => l.event === "request_failed" && l.level === "error")).toBe(true);
  });

  test("without a worker are 503, retryable soon", async () => {
    const scene = new GatewayScene();
    const model = await scene.deploy();
    const response = await scene.chat(model.id, { stream: true });
    expect(response.headers.get("retry-after")).toBe("1");
    expect(await errorOf(response)).toMatchObject({ status: 503, code: "no_worker" });
  });

  test("of a database that is away do not touch warm models", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.warm();
    scene.store.isAway = true;
    expect((await scene.chat(model.id)).status).toBe(200);
    expect(await errorOf(await scene.chat("unknown"))).toMatchObject({
      status: 503,
      code: "state_unavailable",
    });
    expect(await errorOf(await scene.get("/readyz"))).toMatchObject({
      status: 503,
      code: "state_unavailable",
    });
    expect((await scene.get("/livez")).status).toBe(200);
  });
});

describe("every response", () => {
  test("has a request id; a client's is kept when it is sane", async () => {
    const scene = new GatewayScene();
    const id = async (given: string) =>
      (await scene.get("/livez", { "x-request-id": given })).headers.get("x-request-id");
    expect(await id("abc-1.2:3")).toBe("abc-1.2:3");
    expect(await id("x".repeat(limits.request_id_chars + 1))).toMatch(/^req-[0-9a-f]{24}$/);
    expect(await id("a b")).toMatch(/^req-/);
    expect((await scene.get("/nowhere")).headers.get("x-request-id")).toMatch(/^req-/);
  });

  test("may be read by pages of this machine, or of any origin where keys are needed; never the admin API", async () => {
    const preflight = async (scene: GatewayScene, path: string, origin: string) => {
      const headers = {
        origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,x-stainless-lang",
      };
      const response = await scene.gateway.app.request(path, { method: "OPTIONS", headers });
      return response.headers.get("access-control-allow-origin");
    };
    const open = new GatewayScene();
    expect(await preflight(open, "/v1/chat/completions", "http://localhost:3000")).toBe(
      "http://localhost:3000",
    );
    expect(await preflight(open, "/v1/chat/completions", "https://example.com")).toBeNull();
    const keyed = new GatewayScene({ config: { api_keys: ["a-key-of-the-tests"] } });
    expect(await preflight(keyed, "/v1/models", "https://example.com")).toBe("https://example.com");
    expect(await preflight(keyed, "/admin/v1/models", "http://localhost:3000")).toBeNull();
  });
});

describe("models", () => {
  test("are listed with their state, and found by ids with / and :", async () => {
    const scene = new GatewayScene();
    const model = await scene.deploy({ id: "org/family:7b" });
    await scene.register([model]);
    const status = async () => modelList.parse(await (await scene.get("/v1/models")).json()).data;
    expect(await status()).toMatchObject([{ id: "org/family:7b", status: "unloaded", context_tokens: 128 }]);
    await (await scene.chat(model.id)).text();
    expect(await status()).toMatchObject([{ status: "loaded" }]);
    for (const path of ["org/family:7b", "org%2Ffamily%3A7b"]) {
      const found = modelObject.parse(await (await scene.get(`/v1/models/${path}`)).json());
      expect(found).toMatchObject({ id: "org/family:7b", object: "model", status: "loaded" });
    }
    expect(await errorOf(await scene.get("/v1/models/org/other"))).toMatchObject({ status: 404 });
  });
});
