/** Translates public requests into what the dispatcher runs. Pure but for the drawn seed. */
import type { ChatRequest, CompletionRequest } from "../../schema/api/chat.ts";
import type { ResponseFormat } from "../../schema/api/formats.ts";
import type { requestFields } from "../../schema/api/request-fields.ts";
import type { AnswerFormat } from "../../schema/cluster/conversation.ts";
import type { SamplingParams } from "../../schema/cluster/generate.ts";
import type { AnswerShapeName } from "../../schema/vocab.ts";
import type { GenerationRequest } from "../dispatch/updates.ts";
import type { Random } from "../ports.ts";
import { toConversation } from "./to-conversation.ts";

/** OpenAI's defaults where it has some; filters that it does not know are off. */
const defaults = { temperature: 1, top_k: 0, top_p: 1, min_p: 0 } as const;
/** OpenAI's default length of a text completion; a chat goes on until it ends. */
const completionMaxTokens = 16;
/** How far back a repetition penalty looks that does not say so. */
const defaultRepeatLastN = 64;

type Shared = Pick<CompletionRequest, keyof typeof requestFields | "response_format" | "grammar">;
type Generation = Omit<GenerationRequest, "prompt" | "max_tokens">;

export function chatToGeneration(body: ChatRequest, random: Random): GenerationRequest {
  const max_tokens = body.max_completion_tokens ?? body.max_tokens ?? null;
  const top_logprobs = body.logprobs === true ? (body.top_logprobs ?? 0) : null;
  return { ...shared(body, "chat", top_logprobs, random), prompt: toConversation(body), max_tokens };
}

export function completionToGeneration(body: CompletionRequest, random: Random): GenerationRequest {
  const max_tokens = body.max_tokens ?? completionMaxTokens;
  const prompt = { kind: "text", text: body.prompt } as const;
  return { ...shared(body, "text", body.logprobs ?? null, random), prompt, max_tokens };
}

function shared(
  body: Shared,
  shape: AnswerShapeName,
  top_logprobs: number | null,
  random: Random,
): Generation {
  const sampling: SamplingParams = {
    temperature: body.temperature ?? defaults.temperature,
    top_k: body.top_k ?? defaults.top_k,
    top_p: body.top_p ?? defaults.top_p,
    min_p: body.min_p ?? defaults.min_p,
    seed: toSeed(body.seed ?? null, random),
    ...toPenalties(body),
    ...(body.logit_bias.length === 0 ? {} : { logit_bias: body.logit_bias }),
    ...(top_logprobs === null ? {} : { top_logprobs }),
  };
  const format = toFormat(body.response_format ?? null, body.grammar ?? null);
  const include_usage = body.stream === true && body.stream_options?.include_usage === true;
  const answer = { shape, model: body.model, include_usage };
  return {
    model_id: body.model,
    sampling,
    stop: body.stop,
    ignore_eos: body.ignore_eos ?? false,
    format,
    answer,
  };
}

function toPenalties(body: Shared): Partial<SamplingParams> {
  const repeat_penalty = body.repeat_penalty ?? body.repetition_penalty ?? 1;
  return {
    ...(body.typical_p == null ? {} : { typical_p: body.typical_p }),
    ...(repeat_penalty === 1
      ? {}
      : { repeat_penalty, repeat_last_n: body.repeat_last_n ?? defaultRepeatLastN }),
    ...(body.presence_penalty ? { presence_penalty: body.presence_penalty } : {}),
    ...(body.frequency_penalty ? { frequency_penalty: body.frequency_penalty } : {}),
  };
}

function toFormat(format: ResponseFormat | null, grammar: string | null): AnswerFormat | null {
  if (grammar !== null) return { kind: "grammar", grammar };
  switch (format?.type) {
    case "json_object":
      return { kind: "json_schema", schema: { type: "object" } };
    case "json_schema":
      return { kind: "json_schema", schema: format.json_schema.schema };
    default:
      return null;
  }
}

/** The seed as 64 unsigned bits; negative ones wrap around, missing ones are drawn. */
function toSeed(given: number | null, random: Random): string {
  if (given !== null) return BigInt.asUintN(64, BigInt(given)).toString();
  const bytes = random.bytes(8);
  return new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0).toString();
}
