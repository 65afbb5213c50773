/** The `openai` package as a client: what it makes of our streams, answers and errors. */
import { describe, expect, test } from "bun:test";
import OpenAI from "openai";
import { eventually } from "../support/eventually.ts";
import { GatewayScene } from "../support/gateway-scene.ts";
import { tokens, unreachable } from "../support/scripted-worker.ts";

const apiKey = "a-key-of-the-tests";

function clientOf(scene: GatewayScene, key = apiKey): OpenAI {
  return new OpenAI({
    apiKey: key,
    baseURL: "http://gateway.test/v1",
    maxRetries: 0,
    fetch: async (input, init) => await scene.gateway.app.fetch(new Request(input, init)),
  });
}

async function warmScene() {
  const scene = new GatewayScene({ config: { api_keys: [apiKey] } });
  const { model } = await scene.ready();
  const client = clientOf(scene);
  const messages = [{ role: "user", content: "Hi" }] as const;
  const ask = { model: model.id, messages: [...messages] };
  await client.chat.completions.create(ask);
  return { scene, client, ask };
}

describe("the openai client", () => {
  test("reads an answer in one piece, with the request id", async () => {
    const { client, ask } = await warmScene();
    const answer = await client.chat.completions.create(ask);
    expect(answer.choices[0]?.message.content).toBe("Hello world");
    expect(answer.usage?.total_tokens).toBe(7);
    expect(answer._request_id).toMatch(/^req-/);
  });

  test("reads a stream, the usage included", async () => {
    const { client, ask } = await warmScene();
    const stream = await client.chat.completions.create({
      ...ask,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = "";
    let total: number | undefined;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? "";
      total = chunk.usage?.total_tokens ?? total;
    }
    expect(text).toBe("Hello world");
    expect(total).toBe(7);
  });

  test("throws an API error when a stream fails in the middle", async () => {
    const { scene, client, ask } = await warmScene();
    scene.workers.onGenerate = function* () {
      yield { type: "started", prompt_tokens: 5 };
      yield tokens(0, ["Hello"]);
      unreachable();
    };
    const stream = await client.chat.completions.create({ ...ask, stream: true });
    const seen: string[] = [];
    const reading = (async () => {
      for await (const chunk of stream) seen.push(chunk.choices[0]?.delta.content ?? "");
    })();
    const error = await reading.catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(OpenAI.APIError);
    expect(error).toMatchObject({ code: "generation_lost" });
    expect(seen).toEqual(["", "Hello"]);
  });

  test("cancels the generation when its loop breaks", async () => {
    const { scene, client, ask } = await warmScene();
    scene.workers.onGenerate = async function* (_request, signal) {
      yield { type: "started", prompt_tokens: 5 };
      yield tokens(0, ["Hello"]);
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
    };
    const stream = await client.chat.completions.create({ ...ask, stream: true });
    for await (const chunk of stream) if (chunk.choices[0]?.delta.content === "Hello") break;
    await eventually("the cancel arrives", () => scene.workers.cancels.length === 1);
    expect(scene.workers.open).toBe(0);
  });

  test("knows our errors by its own classes", async () => {
    const { scene, client, ask } = await warmScene();
    const refused = (thrown: unknown) => thrown;
    const unknown = await client.chat.completions.create({ ...ask, model: "nobody" }).catch(refused);
    expect(unknown).toBeInstanceOf(OpenAI.NotFoundError);
    expect(unknown).toMatchObject({ code: "model_not_found", param: "model" });
    const unsupported = await client.chat.completions
      .create({ ...ask, audio: { voice: "any", format: "mp3" } })
      .catch(refused);
    expect(unsupported).toBeInstanceOf(OpenAI.BadRequestError);
    expect(unsupported).toMatchObject({ code: "unsupported_parameter", param: "audio" });
    const stranger = clientOf(scene, "not-the-key-of-the-tests");
    expect(await stranger.models.list().catch(refused)).toBeInstanceOf(OpenAI.AuthenticationError);
  });

  test("lists models and reads text completions", async () => {
    const { client, ask } = await warmScene();
    const models = await client.models.list();
    expect(models.data.map((m) => m.id)).toEqual([ask.model]);
    expect((await client.models.retrieve(ask.model)).id).toBe(ask.model);
    const answer = await client.completions.create({ model: ask.model, prompt: "Once" });
    expect(answer.choices[0]?.text).toBe("Hello world");
  });
});
