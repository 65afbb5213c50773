/** Embeddings and rankings through a whole cluster: started on demand like answers, with the official client. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import OpenAI from "openai";
import { embeddingsResponse } from "../../schema/api/embeddings.ts";
import { rerankResponse } from "../../schema/api/rerank.ts";
import { limits } from "../../schema/limits.ts";
import type { Pooling } from "../../schema/vocab.ts";
import type { Architecture } from "../models/generator/architectures.ts";
import { makeModel } from "../models/make-model.ts";
import { TestCluster } from "../support/cluster.ts";

setDefaultTimeout(60_000);

const folder = mkdtempSync(path.join(tmpdir(), "sllm-vectors-"));
let cluster: TestCluster;
let client: OpenAI;

async function deployRandom(id: string, architecture: Architecture, pooling: Pooling): Promise<void> {
  const out = path.join(folder, `${id}.gguf`);
  const [size_bytes, type] = [1_000_000, "f16"] as const;
  await makeModel({ architecture, pooling, size_bytes, type, out, context_tokens: 512, layers: 1 });
  await cluster.deploy(id, out);
}

beforeAll(async () => {
  cluster = await TestCluster.start();
  await deployRandom("encoder", "bert", "mean");
  await deployRandom("decoder", "qwen2", "last");
  await deployRandom("ranker", "bert", "rank");
  await cluster.deploy("poet");
  client = new OpenAI({ baseURL: `${cluster.url}/v1`, apiKey: "none", maxRetries: 0 });
}, 120_000);
afterAll(async () => {
  await cluster?.close();
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

const embed = async (body: Record<string, unknown>) => {
  const response = await cluster.post("/v1/embeddings", body);
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
  return embeddingsResponse.parse(await response.json());
};
const vectorsOf = (answer: Awaited<ReturnType<typeof embed>>): number[][] =>
  answer.data.map(({ embedding }) => {
    if (typeof embedding === "string") throw new Error("the vector is encoded");
    return embedding;
  });
const product = (a: readonly number[] = [], b: readonly number[] = []) =>
  a.reduce((sum, value, i) => sum + value * (b[i] ?? Number.NaN), 0);

test("the official client embeds several texts with a cold model", async () => {
  // It asks for base64 and decodes it.
  const input = ["To be, or not to be", "Romeo", "To be, or not to be"];
  const answer = await client.embeddings.create({ model: "encoder", input });
  expect(answer.data.map(({ index }) => index)).toEqual([0, 1, 2]);
  const [first, second, third] = answer.data.map(({ embedding }) => embedding);
  expect(first).toHaveLength(256);
  expect(product(first, first)).toBeCloseTo(1, 5);
  expect(product(first, third)).toBeCloseTo(1, 5);
  expect(product(first, second)).toBeLessThan(0.9999);
  expect(answer.usage.prompt_tokens).toBeGreaterThan(3);
  expect(answer.usage.total_tokens).toBe(answer.usage.prompt_tokens);
});

test("a text alone, in company, in base64 and as tokens has the same vector", async () => {
  for (const model of ["encoder", "decoder"]) {
    const [alone] = vectorsOf(await embed({ model, input: "Romeo" }));
    const [, together] = vectorsOf(await embed({ model, input: ["O gentle", "Romeo", "If thou dost love"] }));
    expect(product(alone, together)).toBeCloseTo(1, 4);
    const coded = await embed({ model, input: "Romeo", encoding_format: "base64" });
    const text = coded.data[0]?.embedding;
    if (typeof text !== "string") throw new Error("the vector is not encoded");
    expect([...new Float32Array(Uint8Array.from(Buffer.from(text, "base64")).buffer)]).toEqual(alone ?? []);
    const [byTokens, others] = vectorsOf(await embed({ model, input: [[5, 6, 7], [8]] }));
    expect(byTokens).toEqual(vectorsOf(await embed({ model, input: [[5, 6, 7], [9]] }))[0] ?? []);
    expect(product(byTokens, others)).toBeLessThan(0.9999);
    expect((await embed({ model, input: [5, 6, 7] })).usage.prompt_tokens).toBe(3);
  }
});

test("fewer dimensions are the first ones at length 1", async () => {
  const [whole = []] = vectorsOf(await embed({ model: "encoder", input: "Romeo" }));
  const [part = []] = vectorsOf(await embed({ model: "encoder", input: "Romeo", dimensions: 32 }));
  expect(part).toHaveLength(32);
  expect(product(part, part)).toBeCloseTo(1, 5);
  const length = Math.sqrt(product(whole.slice(0, 32), whole.slice(0, 32)));
  expect(product(part, whole)).toBeCloseTo(length, 5);
});

test("hundreds of inputs, more than are computed at once, keep their order", async () => {
  const count = 300;
  const input = Array.from({ length: count }, (_, i) => [3 + (i % 7)]);
  const vectors = vectorsOf(await embed({ model: "encoder", input }));
  expect(vectors).toHaveLength(count);
  for (let i = 7; i < count; i++) expect(product(vectors[i], vectors[i - 7])).toBeCloseTo(1, 4);
  expect(product(vectors[0], vectors[1])).toBeLessThan(0.9999);
});

test("documents are ranked by their relevance, the best ones only if asked, with their text", async () => {
  const documents = ["Romeo", { text: "The king is dead" }, "A horse, my kingdom for a horse", "Romeo"];
  const body = { model: "ranker", query: "Who is dead?", documents };
  const rank = async (change: Record<string, unknown> = {}) =>
    rerankResponse.parse(await (await cluster.post("/v1/rerank", { ...body, ...change })).json());
  const all = await rank();
  expect(all.results.map(({ index }) => index).toSorted()).toEqual([0, 1, 2, 3]);
  const scores = all.results.map(({ relevance_score }) => relevance_score);
  expect(scores).toEqual(scores.toSorted((a, b) => b - a));
  const scoreOf = (index: number) => all.results.find((result) => result.index === index)?.relevance_score;
  expect(scoreOf(0)).toBeCloseTo(scoreOf(3) ?? Number.NaN, 4);
  expect(new Set(scores).size).toBeGreaterThan(1);
  expect(all.usage.prompt_tokens).toBeGreaterThan(10);
  expect(all.results[0]).not.toHaveProperty("document");
  const best = await rank({ top_n: 2, return_documents: true });
  const texts = documents.map((document) => (typeof document === "string" ? document : document.text));
  const bestTexts = best.results.map((result) => result.document?.text);
  expect(bestTexts).toEqual(best.results.map(({ index }) => texts[index]));
  expect(bestTexts).toEqual(all.results.slice(0, 2).map(({ index }) => texts[index]));
});

const refusals: readonly (readonly [string, string, Record<string, unknown>, string, RegExp])[] = [
  [
    "a chat with an encoder",
    "/v1/completions",
    { model: "encoder", prompt: "a" },
    "task_unsupported",
    /'embed'/,
  ],
  ["vectors of a poet", "/v1/embeddings", { model: "poet", input: "a" }, "task_unsupported", /'generate'/],
  ["vectors of a ranker", "/v1/embeddings", { model: "ranker", input: "a" }, "task_unsupported", /'rerank'/],
  [
    "a rank by an encoder",
    "/v1/rerank",
    { model: "encoder", query: "a", documents: ["b"] },
    "task_unsupported",
    /'embed'/,
  ],
  ["no input", "/v1/embeddings", { model: "encoder", input: [] }, "invalid_request", /^input: .*2048/],
  ["an empty input", "/v1/embeddings", { model: "encoder", input: "" }, "invalid_request", /^input/],
  ["mixed inputs", "/v1/embeddings", { model: "encoder", input: ["a", 1] }, "invalid_request", /^input/],
  [
    "a foreign token",
    "/v1/embeddings",
    { model: "encoder", input: [[5], [4_000]] },
    "invalid_request",
    /4000/,
  ],
  [
    "dimensions",
    "/v1/embeddings",
    { model: "encoder", input: "a", dimensions: 257 },
    "invalid_request",
    /1 to 256/,
  ],
  [
    "zero dimensions",
    "/v1/embeddings",
    { model: "encoder", input: "a", dimensions: 0 },
    "invalid_request",
    /^dimensions/,
  ],
  [
    "an encoding",
    "/v1/embeddings",
    { model: "encoder", input: "a", encoding_format: "hex" },
    "invalid_request",
    /^encoding_format/,
  ],
  [
    "a long input",
    "/v1/embeddings",
    { model: "encoder", input: Array(513).fill(5) },
    "context_length_exceeded",
    /513.*512/,
  ],
  [
    "no documents",
    "/v1/rerank",
    { model: "ranker", query: "a", documents: [] },
    "invalid_request",
    /^documents/,
  ],
  [
    "an odd document",
    "/v1/rerank",
    { model: "ranker", query: "a", documents: [{ title: "b" }] },
    "invalid_request",
    /^documents.0/,
  ],
  ["no model", "/v1/embeddings", { model: "none", input: "a" }, "model_not_found", /none/],
];
for (const [what, route, body, code, message] of refusals) {
  test(`${what} is refused as ${code}`, async () => {
    const response = await cluster.post(route, body);
    const { error } = (await response.json()) as { error: { code: string; message: string } };
    expect(error.code).toBe(code);
    expect(response.status).toBe(code === "model_not_found" ? 404 : 400);
    expect(error.message).toMatch(message);
  });
}

test("the list of models tells what each is for", async () => {
  const list = (await (await fetch(`${cluster.url}/v1/models`)).json()) as {
    data: { id: string; task: string }[];
  };
  const tasks = Object.fromEntries(list.data.map(({ id, task }) => [id, task]));
  expect(tasks).toEqual({ encoder: "embed", decoder: "embed", ranker: "rerank", poet: "generate" });
});

test("a client that leaves ends its request, and the model answers the next", async () => {
  const leave = new AbortController();
  const input = Array.from({ length: limits.embedding_inputs }, () => Array(100).fill(5));
  const gone = cluster.post("/v1/embeddings", { model: "encoder", input }, { signal: leave.signal });
  setTimeout(() => leave.abort(), 50);
  await expect(gone).rejects.toThrow();
  expect(vectorsOf(await embed({ model: "encoder", input: "Romeo" }))).toHaveLength(1);
});
