/** POST /v1/rerank in the shape that Cohere, Jina and llama-server share: request and answer. */
import { z } from "zod";
import { modelId } from "../ids.ts";
import { limits } from "../limits.ts";
import { inputUsage } from "./embeddings.ts";
import { wholeFrom } from "./ranges.ts";

const document = z
  .union([z.string(), z.looseObject({ text: z.string() })], { error: 'a text or {"text": ...}' })
  .transform((value) => (typeof value === "string" ? value : value.text));

export const rerankRequest = z.looseObject({
  model: modelId,
  query: z.string().min(1),
  documents: z.array(document).min(1).max(limits.embedding_inputs),
  /** Results at most, the most relevant ones; all if left out. */
  top_n: wholeFrom(1, limits.embedding_inputs).nullish(),
  return_documents: z.boolean().nullish(),
});
export type RerankRequest = z.output<typeof rerankRequest>;

export const rerankResponse = z.object({
  id: z.string(),
  object: z.literal("list"),
  model: z.string(),
  /** The most relevant first. */
  results: z.array(
    z.object({
      /** Of the document in the request. */
      index: z.number().int().min(0),
      /** As the model's head says it: comparable within one model, not limited to any range. */
      relevance_score: z.number(),
      document: z.object({ text: z.string() }).optional(),
    }),
  ),
  usage: inputUsage,
});
export type RerankResponse = z.infer<typeof rerankResponse>;
