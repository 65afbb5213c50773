/** Tool calls, log-probabilities and several choices as the `openai` client reads them, whole and in streams. */
import { describe, expect, test } from "bun:test";
import OpenAI from "openai";
import { seedOfChoice } from "../../gateway/dispatch/choices.ts";
import type { MessageDelta } from "../../schema/cluster/conversation.ts";
import type { GenerationEvent } from "../../schema/cluster/generate.ts";
import { GatewayScene } from "../support/gateway-scene.ts";
import { done, say, tokens } from "../support/scripted-worker.ts";

async function warmScene() {
  const scene = new GatewayScene();
  const { model } = await scene.warm();
  const client = new OpenAI({
    apiKey: "unused",
    baseURL: "http://gateway.test/v1",
    maxRetries: 0,
    fetch: async (input, init) => await scene.gateway.app.fetch(new Request(input, init)),
  });
  return { scene, client, ask: { model: model.id, messages: [{ role: "user" as const, content: "Hi" }] } };
}

/** A stream whose tokens were taken apart by the engine. */
function* read(deltas: readonly MessageDelta[]): Generator<GenerationEvent> {
  yield { type: "started", prompt_tokens: 5 };
  for (const [i, delta] of deltas.entries()) yield { ...tokensEvent(i, "raw"), delta };
  yield Object.assign(done(deltas.length), { delta: {} });
}

function tokensEvent(index: number, text: string) {
  const event = tokens(index, [text]);
  if (event.type !== "tokens") throw new Error("not tokens");
  return event;
}

const callDeltas: readonly MessageDelta[] = [
  { reasoning_content: "Hm." },
  { content: "Let me see. " },
  {},
  { tool_calls: [{ index: 0, name: "weather" }] },
  { tool_calls: [{ index: 0, arguments: '{"city":' }] },
  {
    tool_calls: [
      { index: 0, arguments: '"Verona"}' },
      { index: 1, name: "time", arguments: "{}" },
    ],
  },
];
const tool = (name: string) => ({
  type: "function" as const,
  function: { name, parameters: { type: "object", properties: {} } },
});
const tools = [tool("weather"), tool("time")];

describe("tools", () => {
  test("travel to the worker as they were asked for, a named one alone", async () => {
    const { scene, client, ask } = await warmScene();
    const choice = { type: "function" as const, function: { name: "time" } };
    await client.chat.completions.create({ ...ask, tools });
    await client.chat.completions.create({ ...ask, tools, tool_choice: choice });
    await client.chat.completions.create({ ...ask, tools, tool_choice: "none" });
    const prompts = scene.workers.generations.slice(-3).map((g) => g.request.prompt);
    const names = (prompt: unknown) =>
      (prompt as { tools?: { name: string }[] }).tools?.map((one) => one.name);
    expect(prompts.map(names)).toEqual([["weather", "time"], ["time"], undefined]);
    expect(prompts[0]).toMatchObject({ tool_choice: "auto", parallel_tool_calls: true });
    expect(prompts[1]).toMatchObject({ tool_choice: "required" });
  });

  test("are called in streams: the name first, arguments in pieces, ids that follow from the generation", async () => {
    const { scene, client, ask } = await warmScene();
    scene.workers.onGenerate = () => read(callDeltas);
    const stream = client.chat.completions.stream({ ...ask, tools });
    const completion = await stream.finalChatCompletion();
    const message = completion.choices[0]?.message;
    expect(message?.content).toBe("Let me see. ");
    const id = completion.id.replace("chatcmpl-", "");
    expect(message?.tool_calls).toMatchObject([
      {
        id: `call_${id}_0_0`,
        type: "function",
        function: { name: "weather", arguments: '{"city":"Verona"}' },
      },
      { id: `call_${id}_0_1`, type: "function", function: { name: "time", arguments: "{}" } },
    ]);
    expect(completion.choices[0]?.finish_reason).toBe("tool_calls");
  });

  test("are called in whole answers, with the reasoning beside them", async () => {
    const { scene, client, ask } = await warmScene();
    scene.workers.onGenerate = () => read(callDeltas);
    const answer = await client.chat.completions.create({ ...ask, tools });
    expect(answer.choices[0]).toMatchObject({
      finish_reason: "tool_calls",
      message: { content: "Let me see. ", reasoning_content: "Hm.", tool_calls: [{}, {}] },
    });
  });
});

const told = (text: string) => ({
  token: 7,
  text,
  logprobs: [
    { token: 7, logprob: -0.5, bytes: [...new TextEncoder().encode(text)] },
    { token: 8, logprob: -1.5, bytes: [0xc3] },
  ],
});

function* sayTold(): Generator<GenerationEvent> {
  yield { type: "started", prompt_tokens: 5 };
  yield { type: "tokens", choice: 0, first_index: 0, tokens: [told("He"), told("ü")] };
  yield done(2);
}

describe("log-probabilities", () => {
  test("are told with bytes for every token, whole and in streams alike", async () => {
    const { scene, client, ask } = await warmScene();
    scene.workers.onGenerate = sayTold;
    const wanted = { ...ask, logprobs: true, top_logprobs: 1 };
    const answer = await client.chat.completions.create(wanted);
    expect(scene.workers.generations.at(-1)?.request.sampling.top_logprobs).toBe(1);
    const content = answer.choices[0]?.logprobs?.content ?? [];
    const half = { token: "\ufffd", logprob: -1.5, bytes: [0xc3] };
    expect(content).toEqual([
      { token: "He", logprob: -0.5, bytes: [72, 101], top_logprobs: [half] },
      { token: "ü", logprob: -0.5, bytes: [0xc3, 0xbc], top_logprobs: [half] },
    ]);
    const streamed: unknown[] = [];
    for await (const chunk of await client.chat.completions.create({ ...wanted, stream: true })) {
      streamed.push(...(chunk.choices[0]?.logprobs?.content ?? []));
    }
    expect(streamed).toEqual(content);
  });

  test("of text completions are lists with the places of tokens", async () => {
    const { scene, client, ask } = await warmScene();
    scene.workers.onGenerate = sayTold;
    const answer = await client.completions.create({ model: ask.model, prompt: "A", logprobs: 1 });
    expect(answer.choices[0]?.logprobs).toEqual({
      tokens: ["He", "ü"],
      token_logprobs: [-0.5, -0.5],
      top_logprobs: [{ "bytes:\\xc3": -1.5 }, { "bytes:\\xc3": -1.5 }],
      text_offset: [0, 2],
    });
  });
});

describe("several choices", () => {
  test("have seeds of their own, the first one the seed itself, and usage that counts the prompt once", async () => {
    const { scene, client, ask } = await warmScene();
    const before = scene.workers.generations.length;
    scene.workers.onGenerate = (request) => say(["seed ", request.sampling.seed]);
    const answer = await client.chat.completions.create({ ...ask, n: 3, seed: 11 });
    const seeds = [0, 1, 2].map((choice) => seedOfChoice("11", choice));
    expect(seeds[0]).toBe("11");
    expect(answer.choices.map((c) => [c.index, c.message.content])).toEqual(
      seeds.map((seed, index) => [index, `seed ${seed}`]),
    );
    expect(answer.usage).toMatchObject({ prompt_tokens: 5, completion_tokens: 6, total_tokens: 11 });
    expect(scene.workers.generations.length - before).toBe(3);
  });

  test("stream side by side with their index, one usage and one [DONE]", async () => {
    const { scene, client, ask } = await warmScene();
    scene.workers.onGenerate = (request) => say([request.sampling.seed, "!"]);
    const texts = ["", ""];
    const reasons: (string | null)[] = [null, null];
    let usages = 0;
    const options = { stream: true as const, stream_options: { include_usage: true } };
    for await (const chunk of await client.chat.completions.create({ ...ask, n: 2, seed: 4, ...options })) {
      if (chunk.usage) usages++;
      for (const { index, delta, finish_reason } of chunk.choices) {
        texts[index] += delta.content ?? "";
        reasons[index] = finish_reason ?? reasons[index] ?? null;
      }
    }
    expect(texts).toEqual([`${seedOfChoice("4", 0)}!`, `${seedOfChoice("4", 1)}!`]);
    expect(reasons).toEqual(["stop", "stop"]);
    expect(usages).toBe(1);
  });

  test("fail together, and what still runs is cancelled", async () => {
    const { scene, client, ask } = await warmScene();
    let started = 0;
    scene.workers.onGenerate = async function* (_request, signal) {
      const isFirst = started++ === 0;
      yield { type: "started", prompt_tokens: 5 };
      if (isFirst) {
        yield { type: "error", error: { code: "invalid_request", message: "no grammar" } };
        return;
      }
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
    };
    const refused = await client.chat.completions.create({ ...ask, n: 2 }).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(OpenAI.BadRequestError);
    expect(scene.workers.open).toBe(0);
  });
});
