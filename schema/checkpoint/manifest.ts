/** manifest.json of a checkpoint directory; README.md beside this file is the specification of the format. */
import { z } from "zod";
import { checkpointDigest } from "../ids.ts";
import { limits } from "../limits.ts";
import { type ModelTask, poolings } from "../vocab.ts";

export const checkpointVersion = 1;

/** Names of the files in a checkpoint directory. */
export const checkpointFiles = {
  manifest: "manifest.json",
  origin: "origin.json",
  header: "header.gguf",
  weights: "weights.bin",
} as const;

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const xxh3 = z.string().regex(/^[0-9a-f]{16}$/);

/** What is known of the model without opening it. Counts of tokens, layers and bytes; no unit conversions. */
export const modelFacts = z.strictObject({
  architecture: z.string().min(1).max(64),
  name: z.string().max(512),
  parameters: count,
  layers: z.number().int().min(1).max(512),
  embedding: z.number().int().min(1),
  vocabulary_tokens: z.number().int().min(1),
  /** Context the model was trained for. */
  context_tokens: z.number().int().min(1),
  /** Commonest tensor type by bytes, e.g. F16, Q4_K. */
  quantisation: z.string().min(1).max(32),
  /** KV cache of one token over all layers with F16 keys and values. */
  kv_bytes_per_token: count,
  /** SHA-256 of the chat template's text; null without one. */
  chat_template_sha256: sha256.nullable(),
  /** Of a model that makes vectors or scores; left out: it generates. */
  pooling: z.enum(poolings).optional(),
});
export type ModelFacts = z.infer<typeof modelFacts>;

/** What the model is for. */
export function taskOf({ pooling }: Pick<ModelFacts, "pooling">): ModelTask {
  if (pooling === undefined) return "generate";
  return pooling === "rank" ? "rerank" : "embed";
}

export const tensorEntry = z.strictObject({
  name: z.string().min(1).max(255),
  dtype: z.string().min(1).max(32),
  /** Elements per dimension, fastest first (GGUF order). */
  shape: z.array(z.number().int().min(1)).min(1).max(4),
  /** Layer index; -1 for the input part, the number of layers for the output part. */
  layer: z.number().int().min(-1).max(512),
  /** Byte offset in weights.bin. */
  offset: count,
  bytes: count,
});
export type TensorEntry = z.infer<typeof tensorEntry>;

export const chunkEntry = z.strictObject({
  /** Strong digest, for bytes that arrive from outside. */
  sha256,
  /** Fast digest (XXH3, 64 bits, hexadecimal), checked on every read from disk. */
  xxh3,
});
export type ChunkEntry = z.infer<typeof chunkEntry>;

/** What is known of a LoRA adapter without opening it. */
export const adapterFacts = z.strictObject({
  kind: z.literal("lora"),
  /** Of the models that it fits. */
  architecture: z.string().min(1).max(64),
  name: z.string().max(512),
  parameters: count,
  /** The largest of its tensors' ranks. */
  rank: z.number().int().min(1),
  /** What it adds is scaled by alpha / rank. */
  alpha: z.number(),
  /** Commonest tensor type by bytes. */
  quantisation: z.string().min(1).max(32),
});
export type AdapterFacts = z.infer<typeof adapterFacts>;

/** Common to all checkpoints: what lies on the disk. */
const contentFields = {
  version: z.literal(checkpointVersion),
  digest: checkpointDigest,
  header: z.strictObject({
    bytes: z.number().int().min(1).max(limits.gguf_header_bytes),
    /** Of the first `bytes` bytes of header.gguf; the rest of the file is a hole. */
    sha256,
  }),
  weights: z.strictObject({
    bytes: z.number().int().min(1).max(limits.weights_bytes).multipleOf(limits.file_align_bytes),
    chunk_bytes: z
      .number()
      .int()
      .min(limits.file_align_bytes)
      .max(1024 * 1024 * 1024)
      .multipleOf(limits.file_align_bytes),
    chunks: z.array(chunkEntry).min(1),
  }),
  tensors: z.array(tensorEntry).min(1).max(limits.tensors),
};

type Content = z.infer<z.ZodObject<typeof contentFields>>;

/** Chunks and tensors must make sense together. */
function checkContent({ weights, tensors }: Content, context: z.RefinementCtx): void {
  const { bytes, chunk_bytes, chunks } = weights;
  if (chunks.length !== Math.ceil(bytes / chunk_bytes)) {
    context.addIssue({
      code: "custom",
      path: ["weights", "chunks"],
      message: "one entry per chunk is needed",
    });
  }
  let end = 0;
  for (const [i, t] of tensors.entries()) {
    const problem =
      t.offset % limits.tensor_align_bytes !== 0
        ? "is not aligned"
        : t.offset < end
          ? "overlaps the tensor before"
          : t.offset + t.bytes > bytes
            ? "lies beyond the end of weights.bin"
            : null;
    if (problem !== null) {
      context.addIssue({ code: "custom", path: ["tensors", i, "offset"], message: problem });
      return;
    }
    end = t.offset + t.bytes;
  }
}

export const manifest = z.strictObject({ ...contentFields, model: modelFacts }).superRefine(checkContent);
export type Manifest = z.infer<typeof manifest>;

/** Of a checkpoint that holds a LoRA adapter; the rest of the format is the same. */
export const adapterManifest = z
  .strictObject({ ...contentFields, adapter: adapterFacts })
  .superRefine(checkContent);
export type AdapterManifest = z.infer<typeof adapterManifest>;

/** Of any checkpoint in a store. */
export type AnyManifest = Manifest | AdapterManifest;

export function isModel(one: AnyManifest): one is Manifest {
  return "model" in one;
}

export function isAdapter(one: AnyManifest): one is AdapterManifest {
  return "adapter" in one;
}

/** origin.json: where the content came from; not part of the digest. */
export const origin = z.strictObject({
  uri: z.string(),
  /** Names the source's version: for files the SHA-256 over names, sizes and times of change of its parts. */
  revision: z.string(),
  converted_at: z.string(),
  converter: z.string(),
});
export type Origin = z.infer<typeof origin>;
