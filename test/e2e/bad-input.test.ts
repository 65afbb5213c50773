/** What clients get wrong, over public HTTP: always the OpenAI envelope, always the right code and field. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { errorBody } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import { writeToolModel } from "../models/generator/tool-model.ts";
import { sampleModelPath, TestCluster } from "../support/cluster.ts";

let cluster: TestCluster;
beforeAll(async () => {
  cluster = await TestCluster.start();
  await cluster.deploy("romeo", undefined, { context_tokens: 128 });
}, 120_000);
afterAll(() => cluster?.close(), 60_000);

async function refusal(response: Response): Promise<{
  status: number;
  code: string;
  param: string | null;
  message: string;
}> {
  expect(response.headers.get("content-type")).toContain("application/json");
  expect(response.headers.get("x-request-id")).toBeTruthy();
  const { error } = errorBody.parse(await response.json());
  expect(error.message.length).toBeGreaterThan(0);
  return { status: response.status, code: error.code, param: error.param, message: error.message };
}

const valid = { model: "romeo", messages: [{ role: "user", content: "Hello" }], max_tokens: 4 };
const chat = (body: unknown, init: RequestInit = {}) => cluster.post("/v1/chat/completions", body, init);

test("an unknown model is 404 model_not_found", async () => {
  expect(await refusal(await chat({ ...valid, model: "hamlet" }))).toMatchObject({
    status: 404,
    code: "model_not_found",
  });
});

test("malformed JSON is 400", async () => {
  expect(await refusal(await chat(null, { body: '{"model": ' }))).toMatchObject({
    status: 400,
    code: "invalid_request",
  });
});

test.each([
  ["messages", { ...valid, messages: "hi" }],
  ["messages.0.role", { ...valid, messages: [{ role: "king", content: "" }] }],
  ["max_tokens", { ...valid, max_tokens: 0 }],
  ["temperature", { ...valid, temperature: "hot" }],
  ["model", { ...valid, model: undefined }],
])("a wrong %s is 400 and named", async (param, body) => {
  expect(await refusal(await chat(body))).toMatchObject({ status: 400, code: "invalid_request", param });
});

test("a parameter that would change the answer and is not offered is refused by name", async () => {
  expect(await refusal(await chat({ ...valid, mirostat: 2 }))).toMatchObject({
    status: 400,
    code: "unsupported_parameter",
    param: "mirostat",
  });
});

test("a body over the limit is 413", async () => {
  const body = { ...valid, messages: [{ role: "user", content: "x".repeat(limits.body_bytes) }] };
  expect(await refusal(await chat(body))).toMatchObject({ status: 413, code: "payload_too_large" });
});

test("a prompt longer than the context is 400 context_length_exceeded", async () => {
  const body = { ...valid, messages: [{ role: "user", content: "Alas, poor Yorick! ".repeat(200) }] };
  expect(await refusal(await chat(body))).toMatchObject({ status: 400, code: "context_length_exceeded" });
  const warm = await refusal(await chat({ ...body, stream: true }));
  expect(warm).toMatchObject({ status: 400, code: "context_length_exceeded" });
}, 60_000);

test.each([
  // What the template refuses by itself, what fails in it, and what is no template at all: always with its line.
  ["raising", "{{ 'a' }}\n\n{{ raise_exception('Only odd turns') }}", /line 3(.|\n)*Only odd turns/],
  ["failing", "{{ 'a' }}\n{{ nothing(messages) }}", /line 2(.|\n)*nothing/],
  ["broken", "{{ 'a' }}\n{% if %}", /line 2/],
])(
  "a %s chat template is 400 with its line",
  async (name, template, message) => {
    const folder = mkdtempSync(path.join(tmpdir(), "sllm-template-"));
    try {
      const source = path.join(folder, `${name}.gguf`);
      await writeToolModel(source, template);
      await cluster.deploy(name, source, { context_tokens: 128 });
      const response = await chat({ ...valid, model: name });
      const { error } = errorBody.parse(await response.json());
      expect(error.code).toBe("invalid_request");
      expect(error.message).toMatch(message);
      // Its other requests are answered.
      const plain = { model: name, prompt: "Hello", max_tokens: 2 };
      expect((await cluster.post("/v1/completions", plain)).status).toBe(200);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
  60_000,
);

test("an unknown route and a wrong method have the envelope too", async () => {
  expect(await refusal(await fetch(`${cluster.url}/v2/nothing`))).toMatchObject({
    status: 404,
    code: "route_not_found",
  });
  expect(await refusal(await fetch(`${cluster.url}/v1/chat/completions`))).toMatchObject({
    status: 405,
    code: "method_not_allowed",
  });
});

test("the cluster's own API wants the cluster token", async () => {
  const beat = await cluster.post(
    "/cluster/v1/heartbeat",
    {},
    { headers: { authorization: "Bearer wrong-token-0123456" } },
  );
  expect(beat.status).toBe(401);
  const worker = cluster.workers[0];
  expect((await fetch(`${worker?.url}/v1/status`)).status).toBe(401);
});

test("a model bigger than every device's memory is refused when it is deployed, with both numbers", async () => {
  const small = await TestCluster.start({ worker: { SLLM_WORKER_MEMORY_BYTES: "8000000" } });
  try {
    const { manifest } = await small.convert(sampleModelPath);
    const answer = await refusal(await small.post("/admin/v1/models", { id: "romeo", manifest }));
    expect(answer).toMatchObject({ status: 422, code: "deployment_too_large" });
    expect(answer.message).toMatch(/needs \d+ bytes.*gives models 8000000/);
  } finally {
    await small.close();
  }
}, 60_000);

test("a manifest whose digest is not that of its content is refused", async () => {
  const { manifest } = await cluster.convert(sampleModelPath);
  const forged = { ...manifest, digest: "0".repeat(64) };
  const answer = await refusal(await cluster.post("/admin/v1/models", { id: "forged", manifest: forged }));
  expect(answer).toMatchObject({ status: 422, code: "checkpoint_invalid" });
}, 60_000);
