/** Errors of the public API: one envelope, the right status, the field by name, nothing of our insides. */
import { describe, expect, test } from "bun:test";
import { errorBody } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import { GatewayScene } from "../support/gateway-scene.ts";
import { readError } from "../support/read-error.ts";

describe("errors", () => {
  test("have OpenAI's envelope, name the field, and carry the request id", async () => {
    const scene = new GatewayScene({ config: { api_keys: ["a-key-of-the-tests"] } });
    const { model } = await scene.ready();
    const key = { authorization: "Bearer a-key-of-the-tests" };
    const chat = (body: unknown, headers: Record<string, string> = {}) =>
      scene.post("/v1/chat/completions", body, { ...key, ...headers });
    const valid = { model: model.id, messages: [{ role: "user", content: "Hi" }] };

    expect(await readError(await chat("{"))).toMatchObject({ status: 400, code: "invalid_request" });
    expect(await readError(await chat("[]"))).toMatchObject({ status: 400, code: "invalid_request" });
    expect(await readError(await chat({ ...valid, temperature: 3 }))).toMatchObject({
      status: 400,
      code: "invalid_request",
      param: "temperature",
    });
    const badMessage = { ...valid, messages: [{ role: "user", content: 7 }] };
    expect(await readError(await chat(badMessage))).toMatchObject({
      status: 400,
      param: "messages.0.content",
    });
    expect(
      await readError(await chat({ ...valid, stop: ["x".repeat(limits.stop_bytes + 1)] })),
    ).toMatchObject({
      status: 400,
      param: "stop.0",
    });
    expect(await readError(await chat({ ...valid, model: "nobody/here:1" }))).toMatchObject({
      status: 404,
      code: "model_not_found",
      param: "model",
    });
    expect(await readError(await chat(valid, { "content-type": "text/plain" }))).toMatchObject({
      status: 415,
    });
    expect(await readError(await chat(valid, { authorization: "Bearer wrong" }))).toMatchObject({
      status: 401,
      code: "invalid_api_key",
    });
    expect(await readError(await scene.get("/v2/anything"))).toMatchObject({
      status: 404,
      code: "route_not_found",
    });
    const wrongMethod = await scene.get("/v1/chat/completions", key);
    expect(wrongMethod.headers.get("allow")).toBe("POST");
    expect(await readError(wrongMethod)).toMatchObject({ status: 405, code: "method_not_allowed" });

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
    expect(await readError(await scene.chat(model.id, fields))).toMatchObject({
      status: 400,
      code: "unsupported_parameter",
      param,
    });
  });

  test("of a body beyond the limit are 413, whether its length is declared or not", async () => {
    const scene = new GatewayScene();
    const large = "x".repeat(limits.body_bytes + 1);
    const undeclared = await scene.post("/v1/chat/completions", large);
    expect(await readError(undeclared)).toMatchObject({ status: 413, code: "payload_too_large" });
    const declared = await scene.post("/v1/completions", "{}", { "content-length": String(large.length) });
    expect(await readError(declared)).toMatchObject({ status: 413 });
  });

  test("that are defects are 500 without their message, and logged with the request's id", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.warm();
    scene.workers.onGenerate = () => {
      throw new TypeError("secret path /root");
    };
    const error = await readError(await scene.chat(model.id));
    expect(error).toMatchObject({ status: 500, code: "internal" });
    expect(error.message).not.toContain("secret");
    expect(scene.log.some((l) => l.event === "request_failed" && l.level === "error")).toBe(true);
  });

  test("without a worker are 503, retryable soon", async () => {
    const scene = new GatewayScene();
    const model = await scene.deploy();
    const response = await scene.chat(model.id, { stream: true });
    expect(response.headers.get("retry-after")).toBe("1");
    expect(await readError(response)).toMatchObject({ status: 503, code: "no_worker" });
  });

  test("of a database that is away do not touch warm models", async () => {
    const scene = new GatewayScene();
    const { model } = await scene.warm();
    scene.store.isAway = true;
    expect((await scene.chat(model.id)).status).toBe(200);
    expect(await readError(await scene.chat("unknown"))).toMatchObject({
      status: 503,
      code: "state_unavailable",
    });
    expect(await readError(await scene.get("/readyz"))).toMatchObject({
      status: 503,
      code: "state_unavailable",
    });
    expect((await scene.get("/livez")).status).toBe(200);
  });
});
