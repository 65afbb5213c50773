/** Whole answers of the public API, what a request becomes at the worker, headers and the list of models. */
import { describe, expect, test } from "bun:test";
import { chatResponse, completionResponse } from "../../schema/api/answers.ts";
import { modelList, modelObject } from "../../schema/api/models.ts";
import { limits } from "../../schema/limits.ts";
import { eventually } from "../support/eventually.ts";
import { GatewayScene } from "../support/gateway-scene.ts";
import { readError } from "../support/read-error.ts";
import { say } from "../support/scripted-worker.ts";

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
    expect(body.usage).toEqual({
      prompt_tokens: 5,
      completion_tokens: 2,
      total_tokens: 7,
      prompt_tokens_details: { cached_tokens: 3 },
    });
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
    expect(await readError(response)).toMatchObject({ status: 503, code: "model_loading" });
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
    expect(await readError(await scene.get("/v1/models/org/other"))).toMatchObject({ status: 404 });
  });
});
