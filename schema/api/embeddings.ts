/** POST /v1/embeddings in OpenAI's shape: request and answer. */
import { z } from "zod";
import { modelId } from "../ids.ts";
import { limits } from "../limits.ts";
import { wholeFrom } from "./ranges.ts";

const text = z.string().min(1);
const tokens = z.array(wholeFrom(0, 10_000_000)).min(1).max(limits.context_tokens);
const several = (item: typeof text | typeof tokens) => z.array(item).min(1).max(limits.embedding_inputs);

/** One text, several, one list of tokens, or several. */
const input = z
  .union([text, tokens, several(text), several(tokens)], {
    error: `a text, a list of tokens, or 1 to ${limits.embedding_inputs} of either, none of them empty`,
  })
  .transform((value): (string | number[])[] => {
    if (typeof value === "string") return [value];
    return typeof value[0] === "number" ? [value as number[]] : (value as (string | number[])[]);
  });

export const embeddingsRequest = z.looseObject({
  model: modelId,
  input,
  dimensions: wholeFrom(1, limits.embedding_values).nullish(),
  encoding_format: z.enum(["float", "base64"]).nullish(),
  user: z.string().nullish(),
});
export type EmbeddingsRequest = z.output<typeof embeddingsRequest>;

export const inputUsage = z.object({
  prompt_tokens: z.number().int().min(0),
  total_tokens: z.number().int().min(0),
});
export type InputUsage = z.infer<typeof inputUsage>;

export const embeddingsResponse = z.object({
  object: z.literal("list"),
  model: z.string(),
  data: z.array(
    z.object({
      object: z.literal("embedding"),
      index: z.number().int().min(0),
      /** Base64: 32-bit floating point in little-endian order. */
      embedding: z.union([z.array(z.number()), z.string()]),
    }),
  ),
  usage: inputUsage,
});
export type EmbeddingsResponse = z.infer<typeof embeddingsResponse>;
