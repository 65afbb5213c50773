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
  const ended = performance.now();
  for (;;) {
    const row = await cluster.adminGeneration(generation_id);
    if (row.state !== "running" && row.state !== "queued") {
      expect(["cancelled", "finished"]).toContain(row.state);
      break;
    }
    expect(performance.now() - ended).toBeLessThan(2_000);
    await Bun.sleep(20);
  }
}, 60_000);
