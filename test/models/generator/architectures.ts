/** Tensors and metadata of the architectures that the generator knows, from a handful of dimensions. */
import { type Pooling, poolings } from "../../../schema/vocab.ts";
import type { MetadataPair } from "./gguf-file.ts";

export const architectures = ["llama", "mixtral", "qwen2", "qwen3moe", "gemma3", "bert"] as const;
export type Architecture = (typeof architectures)[number];

export interface Dimensions {
  readonly architecture: Architecture;
  readonly embedding: number;
  readonly layers: number;
  /** Width of the feed-forward part, of one expert where there are experts. */
  readonly feed_forward: number;
  readonly vocabulary: number;
  readonly context: number;
  readonly tied: boolean;
  /** How the model makes vectors; it generates if left out. */
  readonly pooling?: Pooling | undefined;
}

export interface TensorPlan {
  readonly name: string;
  readonly shape: readonly number[];
  /** `weight`: random in the model's type. `ones` and `bias` (random): always F32. `router`: random F32. */
  readonly kind: "weight" | "ones" | "bias" | "router";
  readonly standard_deviation: number;
}

const experts = 8;
const expertsUsed = 2;

/** Name in the file: mixtral is the llama architecture with experts. */
const fileName = (architecture: Architecture) => (architecture === "mixtral" ? "llama" : architecture);
const hasExperts = (architecture: Architecture) => architecture === "mixtral" || architecture === "qwen3moe";
const hasHeadNorms = (architecture: Architecture) => architecture === "qwen3moe" || architecture === "gemma3";

/** Feed-forward parts of a layer: the number of experts, or one. */
export function feedForwardParts(architecture: Architecture): number {
  return hasExperts(architecture) ? experts : 1;
}

function headsOf(embedding: number) {
  const length = embedding < 1024 ? 64 : 128;
  const heads = embedding / length;
  return { length, heads, kv_heads: Math.max(1, heads / 4) };
}

/** Metadata of the architecture; the tokenizer's is apart. */
export function metadataOf(d: Dimensions): MetadataPair[] {
  const { length, heads, kv_heads } = headsOf(d.embedding);
  const arch = fileName(d.architecture);
  const pairs: MetadataPair[] = [
    ["general.architecture", "string", arch],
    [`${arch}.context_length`, "uint32", d.context],
    [`${arch}.embedding_length`, "uint32", d.embedding],
    [`${arch}.block_count`, "uint32", d.layers],
    [`${arch}.feed_forward_length`, "uint32", d.feed_forward],
    [`${arch}.attention.head_count`, "uint32", heads],
    [`${arch}.attention.head_count_kv`, "uint32", d.architecture === "bert" ? heads : kv_heads],
    [`${arch}.attention.key_length`, "uint32", length],
    [`${arch}.attention.value_length`, "uint32", length],
    [`${arch}.attention.layer_norm_rms_epsilon`, "float32", 1e-5],
    [`${arch}.rope.dimension_count`, "uint32", length],
    [`${arch}.rope.freq_base`, "float32", 10_000],
    [`${arch}.vocab_size`, "uint32", d.vocabulary],
  ];
  if (hasExperts(d.architecture)) {
    pairs.push([`${arch}.expert_count`, "uint32", experts]);
    pairs.push([`${arch}.expert_used_count`, "uint32", expertsUsed]);
  }
  if (d.architecture === "qwen3moe") {
    pairs.push([`${arch}.expert_feed_forward_length`, "uint32", d.feed_forward]);
  }
  if (d.architecture === "gemma3") pairs.push([`${arch}.attention.sliding_window`, "uint32", 512]);
  if (d.pooling) pairs.push([`${arch}.pooling_type`, "uint32", poolings.indexOf(d.pooling) + 1]);
  if (d.architecture === "bert") {
    pairs.push(["bert.attention.layer_norm_epsilon", "float32", 1e-5]);
    pairs.push(["bert.attention.causal", "bool", false]);
    pairs.push(["tokenizer.ggml.token_type_count", "uint32", 2]);
  }
  return pairs;
}

/** All tensors in the usual order of such files. */
export function tensorsOf(d: Dimensions): TensorPlan[] {
  if (d.architecture === "bert") return encoderTensors(d);
  const wide = 1 / Math.sqrt(d.embedding);
  // Where input and output share the table, entries of size 1 would make every token predict itself.
  const tied = d.tied || d.architecture === "gemma3";
  const tensors = [weight("token_embd", [d.embedding, d.vocabulary], tied ? wide : 1)];
  for (let i = 0; i < d.layers; i++) tensors.push(...layerTensors(d, `blk.${i}.`));
  tensors.push(ones("output_norm", d.embedding));
  if (!tied) tensors.push(weight("output", [d.embedding, d.vocabulary], wide));
  return tensors;
}

function layerTensors(d: Dimensions, prefix: string): TensorPlan[] {
  const { length, heads, kv_heads } = headsOf(d.embedding);
  const wide = 1 / Math.sqrt(d.embedding);
  // Branches add up over the layers; this keeps the sum's size that of one of them.
  const residual = 1 / Math.sqrt(2 * d.layers);
  const query = heads * length;
  const keys = kv_heads * length;
  const tensors = [
    ones("attn_norm", d.embedding),
    weight("attn_q", [d.embedding, query], wide),
    weight("attn_k", [d.embedding, keys], wide),
    weight("attn_v", [d.embedding, keys], wide),
    weight("attn_output", [query, d.embedding], residual / Math.sqrt(query)),
    ones("ffn_norm", d.embedding),
    ...feedForward(d, residual),
  ];
  if (d.architecture === "qwen2")
    tensors.push(bias("attn_q", query), bias("attn_k", keys), bias("attn_v", keys));
  if (hasHeadNorms(d.architecture)) tensors.push(ones("attn_q_norm", length), ones("attn_k_norm", length));
  if (d.architecture === "gemma3") {
    tensors.push(ones("post_attention_norm", d.embedding), ones("post_ffw_norm", d.embedding));
  }
  return tensors.map((tensor) => ({ ...tensor, name: prefix + tensor.name }));
}

/** An encoder: positions in a table, norms behind the branches, and a head where it ranks. */
function encoderTensors(d: Dimensions): TensorPlan[] {
  const { embedding, feed_forward } = d;
  const linear = (name: string, from: number, to: number) => [
    weight(name, [from, to], 1 / Math.sqrt(from)),
    bias(name, to),
  ];
  const norm = (name: string) => [ones(name, embedding), bias(name, embedding)];
  const tensors = [
    weight("token_embd", [embedding, d.vocabulary], 1),
    // Small tables, which the engine library wants in this type.
    { ...weight("position_embd", [embedding, d.context], 1), kind: "router" as const },
    { ...weight("token_types", [embedding, 2], 1), kind: "router" as const },
    ...norm("token_embd_norm"),
  ];
  for (let i = 0; i < d.layers; i++) {
    const layer = [
      ...["attn_q", "attn_k", "attn_v", "attn_output"].flatMap((name) => linear(name, embedding, embedding)),
      ...norm("attn_output_norm"),
      ...linear("ffn_up", embedding, feed_forward),
      ...linear("ffn_down", feed_forward, embedding),
      ...norm("layer_output_norm"),
    ];
    tensors.push(...layer.map((tensor) => ({ ...tensor, name: `blk.${i}.${tensor.name}` })));
  }
  if (d.pooling === "rank")
    tensors.push(...linear("cls", embedding, embedding), ...linear("cls.output", embedding, 1));
  return tensors;
}

function feedForward(d: Dimensions, residual: number): TensorPlan[] {
  const wide = 1 / Math.sqrt(d.embedding);
  const narrow = residual / Math.sqrt(d.feed_forward);
  const { embedding, feed_forward } = d;
  if (!hasExperts(d.architecture)) {
    return [
      weight("ffn_gate", [embedding, feed_forward], wide),
      weight("ffn_down", [feed_forward, embedding], narrow),
      weight("ffn_up", [embedding, feed_forward], wide),
    ];
  }
  return [
    { ...weight("ffn_gate_inp", [embedding, experts], wide), kind: "router" },
    weight("ffn_gate_exps", [embedding, feed_forward, experts], wide),
    weight("ffn_down_exps", [feed_forward, embedding, experts], narrow),
    weight("ffn_up_exps", [embedding, feed_forward, experts], wide),
  ];
}

function weight(name: string, shape: readonly number[], standardDeviation: number): TensorPlan {
  return { name: `${name}.weight`, shape, kind: "weight", standard_deviation: standardDeviation };
}

function ones(name: string, length: number): TensorPlan {
  return { name: `${name}.weight`, shape: [length], kind: "ones", standard_deviation: 0 };
}

function bias(name: string, length: number): TensorPlan {
  return { name: `${name}.bias`, shape: [length], kind: "bias", standard_deviation: 0.02 };
}
