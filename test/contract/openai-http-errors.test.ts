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
    ["temperature", 2.5, "0 to 2"],
    ["top_p", 0, "above 0 and up to 1"],
    ["top_k", 1.5, "a whole number from 0 to"],
    ["min_p", -0.1, "0 to 1"],
    ["typical_p", 2, "above 0 and up to 1"],
    ["repeat_penalty", 0, "0.01 to 10"],
    ["repetition_penalty", 11, "0.01 to 10"],
    ["repeat_last_n", -1, "0 to"],
    ["presence_penalty", 3, "-2 to 2"],
    ["frequency_penalty", "much", "-2 to 2"],
    ["max_tokens", 0, "1 to"],
    ["max_completion_tokens", 2 ** 40, `1 to ${limits.output_tokens}`],
    ["n", limits.choices + 1, `1 to ${limits.choices}`],
    ["seed", 2 ** 60, String(Number.MAX_SAFE_INTEGER)],
    ["top_logprobs", 21, "0 to 20"],
    ["logit_bias", { 5: 101 }, "-100 to 100"],
  ])("%s out of its range (%p) is 400 with the field and the range", async (field, value, range) => {
    const scene = new GatewayScene();
    const { model } = await scene.ready();
    const valid = { model: model.id, messages: [{ role: "user", content: "Hi" }], logprobs: true };
    const error = await readError(await scene.post("/v1/chat/completions", { ...valid, [field]: value }));
    expect(error).toMatchObject({ status: 400, code: "invalid_request" });
    expect(error.param?.split(".")[0]).toBe(field);
    expect(error.message).toContain(range);
  });

  test.each([
    ["best_of", { best_of: 2 }],
    ["audio", { audio: { voice: "any" } }],
    ["mirostat", { mirostat: 2 }],
    ["adaptive_target", { adaptive_target: 0.5 }],
    ["xtc_probability", { xtc_probability: 0.5 }],
  ])("name the parameter %s that would change the answer and is not offered", async (param, fields) => {
    const scene = new GatewayScene();
    const { model } = await scene.ready();
    expect(await readError(await scene.chat(model.id, fields))).toMatchObject({
      status: 400,
      code: "unsupported_parameter",
      param,
    });
  });

  const tool = { type: "function", function: { name: "look", parameters: {} } };
  const json = { type: "json_object" };
  const deep = (levels: number): unknown => (levels === 0 ? {} : { items: deep(levels - 1) });
  const schema = (value: unknown) => ({ type: "json_schema", json_schema: { name: "x", schema: value } });
  test.each([
    ["n", { n: 0 }],
    ["n", { n: limits.choices + 1 }],
    ["temperature", { temperature: 2.5 }],
    ["typical_p", { typical_p: 0 }],
    ["repeat_penalty", { repeat_penalty: 0 }],
    ["presence_penalty", { presence_penalty: 2.1 }],
    ["frequency_penalty", { frequency_penalty: -2.1 }],
    ["logit_bias", { logit_bias: { word: 1 } }],
    ["logit_bias", { logit_bias: { 5: 101 } }],
    ["top_logprobs", { logprobs: true, top_logprobs: 21 }],
    ["top_logprobs", { top_logprobs: 2 }],
    ["tools", { tools: [{ type: "function" }] }],
    ["tools", { tools: [{ type: "function", function: { name: "no blanks" } }] }],
    ["tool_choice", { tool_choice: "required" }],
    ["tool_choice", { tools: [tool], tool_choice: { type: "function", function: { name: "other" } } }],
    ["response_format", { tools: [tool], response_format: json }],
    ["response_format", { response_format: { type: "yaml" } }],
    ["response_format", { response_format: schema("none") }],
    ["response_format", { response_format: schema(deep(limits.schema_depth + 1)) }],
    ["response_format", { response_format: schema({ description: "x".repeat(limits.schema_bytes) }) }],
    ["response_format", { response_format: schema({ type: "string", maxLength: 5_000 }) }],
    ["ignore_eos", { response_format: json, ignore_eos: true }],
    ["grammar", { grammar: 'root ::= "a"', tools: [tool] }],
    ["grammar", { grammar: 'other ::= "a"' }],
    ["grammar", { grammar: `root ::= ${"(".repeat(40)}"a"${")".repeat(40)}` }],
    ["grammar", { grammar: 'root ::= "a"{9999}' }],
    ["grammar", { grammar: "x".repeat(limits.grammar_bytes + 1) }],
    ["messages", { messages: [{ role: "assistant", content: null }] }],
  ])("name the field %s that is out of its range in %j", async (field, fields) => {
    const scene = new GatewayScene();
    const { model } = await scene.ready();
    const error = await readError(await scene.chat(model.id, fields));
    expect(error).toMatchObject({ status: 400, code: "invalid_request" });
    expect(error.param).toStartWith(field);
    expect(scene.workers.generations).toEqual([]);
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
