/** Translates public requests into what the dispatcher runs. Pure but for the drawn seed. */
import type { ChatRequest, CompletionRequest } from "../../schema/api/chat.ts";
import type { SamplingParams } from "../../schema/cluster/generate.ts";
import type { GenerationRequest } from "../dispatch/updates.ts";
import type { Random } from "../ports.ts";

/** OpenAI's defaults where it has some; filters that it does not know are off. */
const defaults = { temperature: 1, top_k: 0, top_p: 1, min_p: 0 } as const;
/** OpenAI's default length of a text completion; a chat goes on until it ends. */
const completionMaxTokens = 16;

type Shared = Pick<
  ChatRequest,
  "model" | "temperature" | "top_k" | "top_p" | "min_p" | "seed" | "stop" | "ignore_eos"
>;

export function chatToGeneration(body: ChatRequest, random: Random): GenerationRequest {
  const messages = body.messages.map(({ role, content }) => ({ role, content }));
  const max_tokens = body.max_completion_tokens ?? body.max_tokens ?? null;
  return { ...shared(body, random), prompt: { kind: "messages", messages }, max_tokens };
}

export function completionToGeneration(body: CompletionRequest, random: Random): GenerationRequest {
  const max_tokens = body.max_tokens ?? completionMaxTokens;
  return { ...shared(body, random), prompt: { kind: "text", text: body.prompt }, max_tokens };
}

function shared(body: Shared, random: Random): Omit<GenerationRequest, "prompt" | "max_tokens"> {
  const sampling: SamplingParams = {
    temperature: body.temperature ?? defaults.temperature,
    top_k: body.top_k ?? defaults.top_k,
    top_p: body.top_p ?? defaults.top_p,
    min_p: body.min_p ?? defaults.min_p,
    seed: toSeed(body.seed ?? null, random),
  };
  return { model_id: body.model, sampling, stop: body.stop, ignore_eos: body.ignore_eos ?? false };
}

/** The seed as 64 unsigned bits; negative ones wrap around, missing ones are drawn. */
function toSeed(given: number | null, random: Random): string {
  if (given !== null) return BigInt.asUintN(64, BigInt(given)).toString();
  const bytes = random.bytes(8);
  return new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0).toString();
}
