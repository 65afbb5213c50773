/**
 * The kinds of requests that streams of the fault tests are: greedy and sampled, plain, to a schema, with tools, by
 * several adapters. Each says what a valid answer of its kind is, whatever its words. Those of the model that computes
 * the same thing every time must have the words of the undisturbed run as well; such models take no adapters.
 */
import { toolCallToken } from "../models/generator/tool-model.ts";

/** Bytes follow the three control tokens of the vocabulary. */
const newLineToken = 3 + 0x0a;

/** An answer as its stream told it. */
export interface Answer {
  readonly text: string;
  /** `<name>: <arguments>` of each call, put together of their pieces. */
  readonly calls: readonly string[];
  readonly finish_reason: string | null;
  /** As the usage counts them. */
  readonly tokens: number;
  readonly prompt_tokens: number;
}

export interface StreamKind {
  readonly name: string;
  readonly path: "/v1/completions" | "/v1/chat/completions";
  /** What the request names: the exact model, the other one, or an adapter of that. */
  readonly model: string;
  readonly body: object;
  /** What is wrong with an answer that need not be a certain one; null when it is valid. */
  readonly problemOf: (answer: Answer) => string | null;
}

/** In the deterministic mode. */
export const exactModel = "exact";
/** The same without it, with adapters. */
export const looseModel = "loose";
export const looseAdapters = ["one", "two"] as const;

const towns = ["Verona", "Venice", "Padua"];
const schema = {
  type: "object",
  properties: {
    name: { type: "string", maxLength: 12 },
    towns: { type: "array", items: { type: "string", enum: towns }, minItems: 2, maxItems: 4 },
  },
  required: ["name", "towns"],
  additionalProperties: false,
};

/** What keeps a text from being an object of the schema. */
function schemaProblem(text: string): string | null {
  try {
    const { name, towns: found, ...more } = JSON.parse(text);
    const isValid =
      typeof name === "string" &&
      [...name].length <= 12 &&
      Array.isArray(found) &&
      [2, 3, 4].includes(found.length) &&
      found.every((town) => towns.includes(town)) &&
      Object.keys(more).length === 0;
    return isValid ? null : `is no object of the schema: ${text}`;
  } catch (error) {
    return `is no JSON (${error instanceof Error ? error.message : error}): ${text}`;
  }
}

const wholeLength = (tokens: number) => (answer: Answer) =>
  answer.tokens === tokens && answer.finish_reason === "length"
    ? null
    : `ended with '${answer.finish_reason}' after ${answer.tokens} tokens, not ${tokens}`;

const toSchema = ({ text, finish_reason }: Answer) =>
  finish_reason === "stop" ? schemaProblem(text) : `ended with '${finish_reason}'`;

const visit = {
  type: "object",
  properties: { town: { type: "string", enum: towns }, days: { type: "integer", maximum: 9 } },
  required: ["town", "days"],
  additionalProperties: false,
};

function isOneCall({ calls: [call, ...more], text }: Answer): string | null {
  if (call === undefined || more.length > 0 || text !== "") return `is not one call: '${text}', ${call}`;
  if (!call.startsWith("go: ")) return `is another call: ${call}`;
  const { town, days } = JSON.parse(call.slice("go: ".length));
  return towns.includes(town) && Number.isInteger(days) && days <= 9 ? null : `has other arguments: ${call}`;
}

/** A model that has never seen JSON fills it with empty lines otherwise. */
const noNewLines = { [newLineToken]: -100 };
const plain = (tokens: number) => ({ max_tokens: tokens, ignore_eos: true });
const byText = { path: "/v1/completions", model: exactModel } as const;

export const streamKinds: readonly StreamKind[] = [
  {
    ...{ ...byText, name: "greedy", problemOf: wholeLength(80) },
    body: { prompt: "ROMEO:\n", temperature: 0, ...plain(80) },
  },
  {
    ...{ ...byText, name: "sampled", problemOf: wholeLength(80) },
    body: { prompt: "JULIET:\n", temperature: 1, seed: 7, ...plain(80) },
  },
  {
    ...{ ...byText, name: "sampled with penalties", problemOf: wholeLength(80) },
    body: { prompt: "NURSE:\n", temperature: 1, seed: 8, top_p: 0.9, presence_penalty: 0.5, ...plain(80) },
  },
  {
    ...{ ...byText, name: "JSON schema", problemOf: toSchema },
    body: {
      ...{ prompt: "A list: ", temperature: 1, seed: 9, max_tokens: 600, logit_bias: noNewLines },
      response_format: { type: "json_schema", json_schema: { name: "towns", schema } },
    },
  },
  {
    ...{ name: "a tool call", path: "/v1/chat/completions", model: exactModel, problemOf: isOneCall },
    body: {
      messages: [{ role: "user", content: "Where to?" }],
      ...{
        temperature: 1,
        seed: 5,
        logit_bias: { [toolCallToken]: 100, ...noNewLines },
        stop: ["</tool_call>"],
      },
      tools: [{ type: "function", function: { name: "go", parameters: visit } }],
      ...{ tool_choice: "required", parallel_tool_calls: false },
    },
  },
  {
    ...{ ...byText, model: "loose:one", name: "sampled by an adapter", problemOf: wholeLength(80) },
    body: { prompt: "MERCUTIO:\n", temperature: 1, seed: 10, ...plain(80) },
  },
  {
    ...{ ...byText, model: "loose:two", name: "greedy by another adapter", problemOf: wholeLength(70) },
    body: { prompt: "ROMEO:\n", temperature: 0, ...plain(70) },
  },
  {
    ...{ ...byText, model: "loose:two", name: "JSON schema by an adapter", problemOf: toSchema },
    body: {
      ...{ prompt: "Towns: ", temperature: 1, seed: 11, max_tokens: 600, logit_bias: noNewLines },
      response_format: { type: "json_schema", json_schema: { name: "towns", schema } },
    },
  },
  {
    ...{ ...byText, model: looseModel, name: "sampled, not deterministic", problemOf: wholeLength(80) },
    body: { prompt: "JULIET:\n", temperature: 1, seed: 7, ...plain(80) },
  },
];
