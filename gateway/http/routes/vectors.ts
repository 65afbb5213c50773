/** POST /v1/embeddings and /v1/rerank: run as a generation is, answer with one body. */
import { Hono } from "hono";
import { type EmbeddingsResponse, embeddingsRequest } from "../../../schema/api/embeddings.ts";
import { type RerankRequest, type RerankResponse, rerankRequest } from "../../../schema/api/rerank.ts";
import { limits } from "../../../schema/limits.ts";
import type { Dispatcher } from "../../dispatch/dispatcher.ts";
import type { EmbeddingRequest, GenerationUpdate } from "../../dispatch/updates.ts";
import { answerHeaders } from "../answer-headers.ts";
import type { AppContext, AppEnv } from "../context.ts";
import { readBody } from "../read-json.ts";
import { requestEntry } from "../request-entry.ts";
import { decodeVector } from "../vector-values.ts";

export interface VectorsDeps {
  readonly dispatcher: Dispatcher;
}

export function vectorsRoutes({ dispatcher }: VectorsDeps): Hono<AppEnv> {
  return new Hono<AppEnv>()
    .post("/v1/embeddings", async (c) => {
      const body = await readBody(c, embeddingsRequest, limits.body_bytes);
      const { model, input, dimensions } = body;
      const request = { model_id: model, inputs: input, dimensions: dimensions ?? undefined };
      const { vectors, usage, headers } = await compute(c, dispatcher, request);
      const encode = body.encoding_format === "base64" ? (vector: string) => vector : decodeVector;
      const data = vectors.map((vector, index) => ({
        object: "embedding" as const,
        index,
        embedding: encode(vector),
      }));
      return c.json({ object: "list", model, data, usage } satisfies EmbeddingsResponse, 200, headers);
    })
    .post("/v1/rerank", async (c) => {
      const body = await readBody(c, rerankRequest, limits.body_bytes);
      const { model, query, documents } = body;
      const answer = await compute(c, dispatcher, { model_id: model, query, inputs: documents });
      const { usage, headers, generation_id } = answer;
      const results = rank(body, answer.vectors);
      const object = "list" as const;
      return c.json(
        { id: `rerank-${generation_id}`, object, model, results, usage } satisfies RerankResponse,
        200,
        headers,
      );
    });
}

/** The most relevant first; of equals the one that came first. */
function rank(body: RerankRequest, vectors: readonly string[]): RerankResponse["results"] {
  const results = vectors.map((vector, index) => {
    // A head with several outputs says the relevance first.
    const [relevance_score = Number.NaN] = decodeVector(vector);
    const text = body.documents[index];
    if (Number.isNaN(relevance_score) || text === undefined) throw new Error("a document has no score");
    return { index, relevance_score, ...(body.return_documents === true ? { document: { text } } : {}) };
  });
  results.sort((a, b) => b.relevance_score - a.relevance_score || a.index - b.index);
  return results.slice(0, body.top_n ?? results.length);
}

/** Computes for as long as the client stays. Throws what the dispatcher throws. */
async function compute(c: AppContext, dispatcher: VectorsDeps["dispatcher"], request: EmbeddingRequest) {
  const run = dispatcher.start(request, requestEntry(c), c.req.raw.signal);
  let placed: GenerationUpdate[] = [];
  let tokens = 0;
  const vectors: string[] = [];
  for await (const update of run.updates) {
    if (update.type === "placed") placed = [update];
    if (update.type === "vectors") vectors.push(...update.vectors);
    if (update.type === "done") tokens = update.usage.prompt_tokens;
  }
  if (vectors.length !== request.inputs.length) throw new Error("some inputs have no vector");
  const usage = { prompt_tokens: tokens, total_tokens: tokens };
  const { generation_id } = run;
  return { vectors, usage, generation_id, headers: answerHeaders(generation_id, placed) };
}
