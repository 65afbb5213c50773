/** The official `openai` client against a real cluster: what most users bring. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import OpenAI from "openai";
import { TestCluster } from "../support/cluster.ts";

let cluster: TestCluster;
let client: OpenAI;
const key = "key-of-a-test-client";
beforeAll(async () => {
  cluster = await TestCluster.start({ gateway: { SLLM_GATEWAY_API_KEYS: key } });
  await cluster.deploy("shakespeare/tiny:f16");
  client = new OpenAI({ baseURL: `${cluster.url}/v1`, apiKey: key, maxRetries: 0 });
}, 120_000);
afterAll(() => cluster?.close(), 60_000);

const messages = [{ role: "user" as const, content: "To be or not to be" }];
const model = "shakespeare/tiny:f16";

test("streams a cold model with usage at the end", async () => {
  const stream = await client.chat.completions.create({
    model,
    messages,
    stream: true,
    max_tokens: 16,
    stream_options: { include_usage: true },
  });
  let text = "";
  let finish: string | null = null;
  let usage: OpenAI.CompletionUsage | null | undefined;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    finish = chunk.choices[0]?.finish_reason ?? finish;
    usage = chunk.usage ?? usage;
  }
  expect(text.length).toBeGreaterThan(0);
  expect(["stop", "length"]).toContain(finish ?? "");
  expect(usage?.completion_tokens).toBeGreaterThan(0);
  expect(usage?.total_tokens).toBe((usage?.prompt_tokens ?? 0) + (usage?.completion_tokens ?? 0));
}, 60_000);

test("answers whole, with the request id the client shows", async () => {
  const answer = await client.chat.completions.create({
    model,
    messages,
    max_completion_tokens: 8,
    temperature: 0,
  });
  expect(answer.choices[0]?.message.role).toBe("assistant");
  expect(answer.choices[0]?.message.content?.length).toBeGreaterThan(0);
  expect(answer._request_id).toBeTruthy();
}, 60_000);

test("text completions work", async () => {
  const answer = await client.completions.create({ model, prompt: "JULIET:\n", max_tokens: 8 });
  expect(answer.choices[0]?.text.length).toBeGreaterThan(0);
}, 60_000);

test("an answer fits its schema, streamed and parsed by the client", async () => {
  const schema = {
    type: "object",
    properties: { mood: { enum: ["merry", "grim"] }, acts: { type: "integer", minimum: 1, maximum: 5 } },
    required: ["mood", "acts"],
    additionalProperties: false,
  };
  const stream = client.chat.completions.stream({
    model,
    messages,
    // The grammar leaves blanks to the model, and sampled freely this one would fill its context with them.
    temperature: 0,
    response_format: { type: "json_schema", json_schema: { name: "play", strict: true, schema } },
  });
  const found = JSON.parse((await stream.finalChatCompletion()).choices[0]?.message.content ?? "");
  expect(["merry", "grim"]).toContain(found.mood);
  expect(Number.isInteger(found.acts)).toBe(true);
}, 60_000);

test("several choices come with their log-probabilities; the first is the one of the seed alone", async () => {
  const wanted = {
    model,
    messages,
    max_tokens: 6,
    seed: 21,
    logprobs: true,
    top_logprobs: 2,
    ignore_eos: true,
  };
  const one = await client.chat.completions.create(wanted);
  const three = await client.chat.completions.create({ ...wanted, n: 3 });
  expect(three.choices.map((choice) => choice.index)).toEqual([0, 1, 2]);
  expect(three.usage?.completion_tokens).toBe(18);
  expect(three.usage?.prompt_tokens).toBe(one.usage?.prompt_tokens ?? 0);
  expect(three.choices[0]?.message.content).toBe(one.choices[0]?.message.content ?? "");
  for (const choice of three.choices) {
    expect(choice.logprobs?.content).toHaveLength(6);
    for (const token of choice.logprobs?.content ?? []) {
      expect(token.logprob).toBeLessThanOrEqual(0);
      expect(token.top_logprobs).toHaveLength(2);
    }
  }
}, 60_000);

test("a schema that cannot become a grammar is 400 with the reason", async () => {
  const schema = { type: "object", properties: { a: { $ref: "#/nowhere" } } };
  const response_format = { type: "json_schema" as const, json_schema: { name: "x", schema } };
  const refused = await client.chat.completions
    .create({ model, messages, response_format })
    .catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(OpenAI.BadRequestError);
  expect(String(refused)).toContain("nowhere");
}, 60_000);

test("lists and retrieves models whose ids hold slashes and colons", async () => {
  const ids: string[] = [];
  for await (const entry of client.models.list()) ids.push(entry.id);
  expect(ids).toContain(model);
  expect((await client.models.retrieve(model)).id).toBe(model);
});

/** What a call failed with. The client's promises are lazy, which `expect(...).rejects` does not see through. */
const failure = (call: PromiseLike<unknown>) =>
  call.then(
    () => null,
    (error: unknown) => error,
  );

test("typed errors arrive as the client's own classes", async () => {
  const stranger = new OpenAI({
    baseURL: `${cluster.url}/v1`,
    apiKey: "not-the-right-key-at-all",
    maxRetries: 0,
  });
  const denied = await failure(stranger.chat.completions.create({ model, messages }));
  expect(denied).toBeInstanceOf(OpenAI.AuthenticationError);
  const unknown = await failure(client.chat.completions.create({ model: "nobody", messages }));
  expect(unknown).toMatchObject({ status: 404, code: "model_not_found" });
  const wrong = await failure(client.chat.completions.create({ model, messages, temperature: 9 }));
  expect(wrong).toMatchObject({ status: 400, param: "temperature" });
});

test("breaking out of the loop ends the generation", async () => {
  const stream = await client.chat.completions.create({ model, messages, stream: true, max_tokens: 200 });
  let id = "";
  for await (const chunk of stream) {
    id = chunk.id;
    if (chunk.choices[0]?.delta.content) break;
  }
  const generation_id = id.replace("chatcmpl-", "");
  const { state } = await cluster.endedGeneration(generation_id);
  expect(["cancelled", "finished"]).toContain(state);
}, 60_000);
