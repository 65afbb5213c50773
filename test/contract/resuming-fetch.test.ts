/** The openai client with sllm/resuming-fetch: gateways die under it, and it reads one whole answer. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import OpenAI from "openai";
import { createResumingFetch } from "../../deploy/client/resuming-fetch.mjs";
import { eventually } from "../support/eventually.ts";
import { StreamScene, wholeText } from "../support/stream-scene.ts";

let scene: StreamScene;
beforeAll(async () => {
  scene = await StreamScene.start({ gateways: 4, token_ms: 10 });
}, 20_000);
afterAll(() => scene?.close());

const clientOf = (first: number, options: Parameters<typeof createResumingFetch>[0] = {}) =>
  new OpenAI({
    apiKey: "any",
    baseURL: `${scene.urlOf(first)}/v1`,
    maxRetries: 0,
    fetch: createResumingFetch({ gateways: scene.gateways.map(({ url }) => url), ...options }),
  });
const wanted = (max_tokens: number) => ({ model: scene.model, prompt: "Hi", max_tokens });
const cancelled = () => scene.workers.reduce((sum, { engines }) => sum + engines.cancelled, 0);
const finished = () => scene.workers.reduce((sum, { engines }) => sum + engines.finished, 0);

test("a stream goes on through the death of its gateway, without a gap and without a repetition", async () => {
  const before = finished();
  const stream = await clientOf(0).completions.create({ ...wanted(80), stream: true });
  let text = "";
  let ends = 0;
  for await (const chunk of stream) {
    const [choice] = chunk.choices;
    text += choice?.text ?? "";
    if (choice?.finish_reason != null) ends += 1;
    if (text === wholeText(10)) void scene.killGateway(0);
  }
  expect(text).toBe(wholeText(80));
  expect(ends).toBe(1);
  expect(finished()).toBe(before + 1);
}, 20_000);

test("a whole answer is asked for again where its gateway died, and made once", async () => {
  const before = finished();
  const answer = clientOf(1).completions.create(wanted(80));
  await Bun.sleep(200);
  void scene.killGateway(1);
  const { choices, usage } = await answer;
  expect(choices[0]?.text).toBe(wholeText(80));
  expect(usage?.completion_tokens).toBe(80);
  expect(finished()).toBe(before + 1);
}, 20_000);

test("a client that stops reading ends the generation, although it could have come back", async () => {
  const before = cancelled();
  const stream = await clientOf(2).completions.create({ ...wanted(3_000), stream: true });
  for await (const _ of stream) break;
  await eventually("it is cancelled", () => cancelled() === before + 1);
});

test("what nobody can go on with ends with an error, never as a short answer", async () => {
  let connections = 0;
  const cut = async (url: string, init: RequestInit) => {
    connections += 1;
    if (connections > 1) {
      const error = { message: "gone", type: "server_error", param: null, code: "generation_lost" };
      return Response.json({ error }, { status: 404 });
    }
    const response = await fetch(url, init);
    const reader = response.body?.getReader();
    let reads = 0;
    const body = new ReadableStream({
      pull: async (controller) => {
        const { value } = (await reader?.read()) ?? {};
        reads += 1;
        if (reads > 3 || value === undefined) controller.close();
        else controller.enqueue(value);
      },
    });
    return new Response(body, { headers: response.headers });
  };
  const stream = await clientOf(2, { fetch: cut }).completions.create({ ...wanted(60), stream: true });
  const read = async () => {
    for await (const _ of stream);
  };
  await expect(read()).rejects.toMatchObject({ code: "generation_lost" });
});

test("several answers to one request pass as they are, and come all", async () => {
  const { choices } = await clientOf(2).completions.create({
    model: scene.model,
    prompt: "Hi",
    max_tokens: 3,
    n: 2,
  });
  expect(choices.map(({ text }) => text)).toEqual([wholeText(3), wholeText(3)]);
});

test("other requests pass as they are", async () => {
  const models = await clientOf(2).models.list();
  expect(models.data.map(({ id }) => id)).toEqual([scene.model]);
});
