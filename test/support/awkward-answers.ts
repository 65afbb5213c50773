/** Answers that a cut can split in a place that hurts, and what is put together again of their events. */
import type { MessageDelta } from "../../schema/cluster/conversation.ts";
import type { GenerateRequest, GenerationEvent, OutputToken } from "../../schema/cluster/generate.ts";
import { toolCallToken } from "../models/generator/tool-model.ts";

export const sampled = (seed: string) => ({ temperature: 1, top_k: 0, top_p: 1, min_p: 0, seed });
export const text = (prompt: string) => ({ prompt: { kind: "text" as const, text: prompt } });
const messages = [{ role: "user" as const, content: "Will it rain?" }];
const city = { type: "string", enum: ["Verona", "Venice"] };
const weather = {
  name: "weather",
  parameters: {
    type: "object",
    properties: { city, days: { type: "integer", maximum: 9 } },
    required: ["city", "days"],
    additionalProperties: false,
  },
};
const schema = {
  type: "object",
  properties: {
    name: { type: "string", maxLength: 40 },
    tags: { type: "array", items: city, minItems: 3, maxItems: 5 },
  },
  required: ["name", "tags"],
  additionalProperties: false,
};

export const answers: Readonly<Record<string, Partial<GenerateRequest>>> = {
  "plain text with penalties and log-probabilities": {
    ...text("ROMEO:\nWhat light"),
    max_tokens: 60,
    ignore_eos: true,
    sampling: {
      ...sampled("3"),
      ...{
        repeat_penalty: 1.3,
        repeat_last_n: 32,
        presence_penalty: 0.4,
        frequency_penalty: 0.2,
        top_logprobs: 2,
      },
    },
  },
  "greedy text": {
    ...text("JULIET:\n"),
    max_tokens: 60,
    ignore_eos: true,
    sampling: { ...sampled("0"), temperature: 0 },
  },
  "characters of several bytes and a stop string across tokens": {
    ...text("A word: "),
    format: { kind: "grammar", grammar: 'root ::= [äß€漢😀]{12} "stop" "here" [a-z]{8}' },
    stop: ["ophe"],
  },
  "a JSON object by its schema": {
    prompt: { kind: "messages", messages },
    format: { kind: "json_schema", schema },
  },
  "a tool call": {
    prompt: {
      kind: "messages",
      messages,
      tools: [weather],
      tool_choice: "required",
      parallel_tool_calls: false,
    },
    sampling: { ...sampled("5"), logit_bias: [{ token: toolCallToken, bias: 100 }] },
    stop: ["</tool_call>"],
  },
};

export const tokensOf = (events: readonly GenerationEvent[]): OutputToken[] =>
  events.flatMap((event) => (event.type === "tokens" ? event.tokens : []));

export const joined = (tokens: readonly OutputToken[]) => tokens.map((token) => token.text).join("");

/** Deltas put together again. */
export function messageOf(events: readonly GenerationEvent[]): { content: string; calls: string[] } {
  const deltas = events.flatMap((e): MessageDelta[] => ("delta" in e && e.delta ? [e.delta] : []));
  const calls: string[] = [];
  for (const { index, name, arguments: more } of deltas.flatMap((delta) => delta.tool_calls ?? [])) {
    calls[index] = `${calls[index] ?? ""}${name === undefined ? "" : `${name}: `}${more ?? ""}`;
  }
  return { content: deltas.map((delta) => delta.content ?? "").join(""), calls };
}
