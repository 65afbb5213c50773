/** What a worker makes of tools, formats and sampling parameters with the sample model, in the order of the engine's work. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { MessageDelta } from "../../schema/cluster/conversation.ts";
import type { GenerateRequest, GenerationEvent, OutputToken } from "../../schema/cluster/generate.ts";
import { convertGguf } from "../../worker/checkpoints/import.ts";
import { toolCallToken, writeToolModel } from "../models/generator/tool-model.ts";
import { generatedText, WorkerHost } from "../support/worker-host.ts";

// Some hundred sampled tokens take seconds on a machine that is busy.
setDefaultTimeout(60_000);

const folder = mkdtempSync(path.join(tmpdir(), "sllm-tool-model-"));
let host: WorkerHost;
let instance_id: string;
beforeAll(async () => {
  const source = path.join(folder, "tools.gguf");
  await writeToolModel(source);
  host = await WorkerHost.start();
  const { digest } = await convertGguf({ source, store_dir: host.store });
  instance_id = await host.loadReady(digest, { context_tokens: 2_048, slots: 2 });
}, 60_000);
afterAll(async () => {
  await host?.close();
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

const weather = {
  name: "weather",
  description: "Tells the weather.",
  parameters: {
    type: "object",
    properties: {
      city: { type: "string", enum: ["Verona", "Venice"] },
      days: { type: "integer", maximum: 9 },
    },
    required: ["city", "days"],
    additionalProperties: false,
  },
};
const messages = [{ role: "user" as const, content: "Will it rain?" }];
const sampled = (seed: string) => ({ temperature: 1, top_k: 0, top_p: 1, min_p: 0, seed });

const ask = (change: Partial<GenerateRequest>) =>
  host.generate(instance_id, { ignore_eos: false, max_tokens: 300, sampling: sampled("5"), ...change });

const tokensOf = (events: readonly GenerationEvent[]): OutputToken[] =>
  events.flatMap((event) => (event.type === "tokens" ? event.tokens : []));

/** Deltas put together again. */
function messageOf(events: readonly GenerationEvent[]) {
  const deltas = events.flatMap((e): MessageDelta[] => ("delta" in e && e.delta ? [e.delta] : []));
  const calls: { name: string; arguments: string }[] = [];
  for (const { index, name, arguments: text } of deltas.flatMap((delta) => delta.tool_calls ?? [])) {
    if (name !== undefined) calls[index] = { name, arguments: "" };
    const call = calls[index];
    if (call) call.arguments += text ?? "";
  }
  return { content: deltas.map((delta) => delta.content ?? "").join(""), calls };
}

/** This model would write verses for ever before it called anything, and then call for ever. */
const eager = (seed: string) => ({
  sampling: { ...sampled(seed), logit_bias: [{ token: toolCallToken, bias: 100 }] },
  stop: ["</tool_call>"],
  max_tokens: 1_200,
});

const toolPrompt = (tool_choice: "auto" | "required", parallel_tool_calls = false) => ({
  prompt: { kind: "messages" as const, messages, tools: [weather], tool_choice, parallel_tool_calls },
});

test("a required tool is called with arguments that fit its schema, told in pieces", async () => {
  const events = await ask({ ...toolPrompt("required"), ...eager("5") });
  expect(events.at(-1)).toMatchObject({ type: "done", finish_reason: "stop" });
  const { calls } = messageOf(events);
  expect(calls).toHaveLength(1);
  expect(calls[0]?.name).toBe("weather");
  const found = JSON.parse(calls[0]?.arguments ?? "");
  expect(["Verona", "Venice"]).toContain(found.city);
  expect(Number.isInteger(found.days)).toBe(true);
  const pieces = events.filter((e) => "delta" in e && e.delta?.tool_calls !== undefined);
  expect(pieces.length).toBeGreaterThan(2);
});

test("a voluntary call is held to its schema from its marker on", async () => {
  const events = await ask({ ...toolPrompt("auto"), ...eager("6") });
  expect(events.at(-1)).toMatchObject({ type: "done", finish_reason: "stop" });
  const { content, calls } = messageOf(events);
  expect(content.trim()).toBe("");
  expect(calls).toHaveLength(1);
  expect(JSON.parse(calls[0]?.arguments ?? "")).toMatchObject({
    city: expect.stringMatching(/^(Verona|Venice)$/),
  });
});

test("a conversation with calls and their results goes on", async () => {
  const call = { id: "call_1", name: "weather", arguments: '{"city":"Verona","days":1}' };
  const conversation = [
    ...messages,
    { role: "assistant" as const, content: null, tool_calls: [call] },
    { role: "tool" as const, content: "sunny", tool_call_id: "call_1" },
  ];
  const prompt = { ...toolPrompt("auto").prompt, messages: conversation };
  const events = await ask({ prompt, max_tokens: 12 });
  expect(events.at(-1)).toMatchObject({ type: "done" });
  const { content, calls } = messageOf(events);
  expect(content.length + calls.length).toBeGreaterThan(0);
});

test("a schema is fitted in every sampled answer, in chats and in plain texts", async () => {
  const schema = {
    type: "object",
    properties: {
      name: { type: "string", minLength: 1, maxLength: 12 },
      tags: { type: "array", items: { enum: ["a", "b"] }, minItems: 1, maxItems: 3 },
    },
    required: ["name", "tags"],
    additionalProperties: false,
  };
  const format = { kind: "json_schema" as const, schema };
  for (const prompt of [
    { kind: "messages" as const, messages },
    { kind: "text" as const, text: "A thing: " },
  ]) {
    for (const seed of ["1", "2", "3", "4"]) {
      const events = await ask({ prompt, format, sampling: sampled(seed) });
      expect(events.at(-1)).toMatchObject({ type: "done", finish_reason: "stop" });
      const text = prompt.kind === "text" ? generatedText(events) : messageOf(events).content;
      const found = JSON.parse(text);
      expect(found.name.length).toBeGreaterThan(0);
      expect(found.tags.every((tag: string) => tag === "a" || tag === "b")).toBe(true);
    }
  }
});

test("a grammar of the client's own shapes the whole answer", async () => {
  const format = { kind: "grammar" as const, grammar: 'root ::= ("ay" | "nay") ", " [a-z]{3} "!"' };
  const events = await ask({ prompt: { kind: "messages", messages }, format });
  expect(generatedText(events)).toMatch(/^(ay|nay), [a-z]{3}!$/);
});

test("a schema that cannot become a grammar, and a grammar that cannot be read, are the request's fault", async () => {
  const refused = async (change: Partial<GenerateRequest>) => (await ask(change)).at(-1);
  const prompt = { kind: "messages" as const, messages };
  const text = { kind: "text" as const, text: "A" };
  const schema = { $ref: "#/nowhere" };
  for (const one of [prompt, text]) {
    expect(await refused({ prompt: one, format: { kind: "json_schema", schema } })).toMatchObject({
      type: "error",
      error: { code: "invalid_request", message: expect.stringContaining("nowhere") },
    });
    expect(await refused({ prompt: one, format: { kind: "grammar", grammar: 'root ::= "a' } })).toMatchObject(
      {
        type: "error",
        error: { code: "invalid_request", message: expect.stringContaining("grammar") },
      },
    );
  }
  // The engine lives on.
  expect((await ask({ prompt: text, max_tokens: 2 })).at(-1)).toMatchObject({ type: "done" });
});

test("log-probabilities come with every token: its own, then the likeliest, in order", async () => {
  const events = await ask({
    prompt: { kind: "text", text: "ROMEO:\n" },
    max_tokens: 12,
    ignore_eos: true,
    sampling: { ...sampled("3"), temperature: 0, top_logprobs: 3 },
  });
  const tokens = tokensOf(events);
  expect(tokens).toHaveLength(12);
  for (const { token, logprobs = [] } of tokens) {
    expect(logprobs.map((entry) => entry.token)[0]).toBe(token);
    // Greedily the token is the likeliest itself.
    expect(logprobs[1]).toEqual(logprobs[0] ?? logprobs[1]);
    const likeliest = logprobs.slice(1).map((entry) => entry.logprob);
    expect(likeliest).toHaveLength(3);
    expect(likeliest).toEqual([...likeliest].sort((a, b) => b - a));
    expect(likeliest.reduce((sum, logprob) => sum + Math.exp(logprob), 0)).toBeLessThanOrEqual(1 + 1e-9);
  }
});

test("a bias forbids a token, penalties drive greedy text out of its rut", async () => {
  const prompt = { kind: "text" as const, text: "ROMEO:\n" };
  const greedy = { ...sampled("0"), temperature: 0 };
  const run = (sampling: GenerateRequest["sampling"]) =>
    ask({ prompt, max_tokens: 120, ignore_eos: true, sampling });
  const plain = tokensOf(await run(greedy)).map((t) => t.token);
  const first = plain[0] ?? 0;
  const biased = tokensOf(await run({ ...greedy, logit_bias: [{ token: first, bias: -100 }] }));
  expect(biased.map((t) => t.token)).not.toContain(first);
  const penalised = tokensOf(await run({ ...greedy, repeat_penalty: 1.5, repeat_last_n: 64 })).map(
    (t) => t.token,
  );
  expect(new Set(penalised).size).toBeGreaterThan(new Set(plain).size);
});
