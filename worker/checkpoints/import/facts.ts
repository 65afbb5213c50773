/** What a checkpoint's manifest says about its model and tensors, from GGUF metadata and tensor infos alone. */
import { createHash } from "node:crypto";
import { type ModelFacts, modelFacts, type TensorEntry } from "../../../schema/checkpoint/manifest.ts";
import { SllmError } from "../../../schema/error.ts";
import { poolings } from "../../../schema/vocab.ts";
import { GgufMetadata } from "./gguf-metadata.ts";
import type { GgufPair, GgufTensor } from "./gguf-reader.ts";
import type { PlacedTensor } from "./gguf-writer.ts";

const float16Bytes = 2;
const mostLayers = 512;
const mostNameChars = 512;

/** Facts of a model. Errors: `checkpoint_invalid` naming the metadata that is missing or makes no sense. */
export function factsOf(pairs: readonly GgufPair[], tensors: readonly GgufTensor[]): ModelFacts {
  const metadata = new GgufMetadata(pairs);
  const architecture = metadata.text("general.architecture");
  if (architecture === null) throw invalid("general.architecture is missing");
  const needed = (name: string): number => {
    const value = metadata.count(`${architecture}.${name}`);
    if (value === null) throw invalid(`${architecture}.${name} is missing`);
    return value;
  };
  const layers = needed("block_count");
  const embedding = needed("embedding_length");
  const template = metadata.textBytes("tokenizer.chat_template");
  const facts = modelFacts.safeParse({
    architecture,
    name: (metadata.text("general.name") ?? architecture).slice(0, mostNameChars),
    parameters: tensors.reduce((sum, tensor) => sum + tensor.elements, 0),
    layers,
    embedding,
    vocabulary_tokens: vocabularyOf(metadata, architecture, tensors),
    context_tokens: needed("context_length"),
    quantisation: commonestType(tensors),
    kv_bytes_per_token: kvBytesPerToken(metadata, architecture, layers, embedding),
    ...poolingOf(metadata, architecture),
    chat_template_sha256: template === null ? null : createHash("sha256").update(template).digest("hex"),
  } satisfies ModelFacts);
  if (facts.success) return facts.data;
  const issue = facts.error.issues[0];
  throw invalid(`${issue?.path.join(".") ?? "metadata"}: ${issue?.message ?? "invalid"}`);
}

function invalid(problem: string): SllmError {
  return new SllmError("checkpoint_invalid", `The model's metadata cannot be used: ${problem}.`);
}

/** Numbers of poolings in files, from 1; 0 is none. What this version does not know is left to the engine to refuse. */
function poolingOf(metadata: GgufMetadata, architecture: string): Pick<ModelFacts, "pooling"> {
  const pooling = poolings[(metadata.count(`${architecture}.pooling_type`) ?? 0) - 1];
  return pooling === undefined ? {} : { pooling };
}

function vocabularyOf(metadata: GgufMetadata, architecture: string, tensors: readonly GgufTensor[]): number {
  const tokens =
    metadata.arrayLength("tokenizer.ggml.tokens") ?? metadata.count(`${architecture}.vocab_size`);
  const rows = tensors.find((tensor) => tensor.name === "token_embd.weight")?.shape[1];
  const found = tokens ?? rows;
  if (found === undefined) throw invalid("the size of the vocabulary is missing");
  return found;
}

/** Type of the most bytes; of equal ones the first by name. */
export function commonestType(tensors: readonly GgufTensor[]): string {
  const bytes = new Map<string, number>();
  for (const tensor of tensors)
    bytes.set(tensor.type.name, (bytes.get(tensor.type.name) ?? 0) + tensor.bytes);
  const [commonest] = [...bytes].sort(([nameA, a], [nameB, b]) => b - a || (nameA < nameB ? -1 : 1));
  return commonest?.[0] ?? "";
}

/**
 * Keys and values of one token over all layers. Layers that keep less (sliding windows, shared or recurrent state
 * without a head count of 0) count in full: an estimate from above.
 */
function kvBytesPerToken(
  metadata: GgufMetadata,
  architecture: string,
  layers: number,
  embedding: number,
): number {
  const perLayer = (name: string): ((layer: number) => number) | null => {
    const value = metadata.counts(`${architecture}.attention.${name}`, mostLayers);
    if (value === null) return null;
    return typeof value === "number" ? () => value : (layer) => value[layer] ?? 0;
  };
  const heads = perLayer("head_count");
  if (heads === null) return 0;
  const kvHeads = perLayer("head_count_kv") ?? heads;
  const firstHeads = heads(0);
  const fallback = firstHeads > 0 ? Math.floor(embedding / firstHeads) : 0;
  const length = (name: string) =>
    Math.max(
      metadata.count(`${architecture}.attention.${name}`) ?? fallback,
      metadata.count(`${architecture}.attention.${name}_swa`) ?? 0,
    );
  const perHead = length("key_length") + length("value_length");
  let total = 0;
  for (let layer = 0; layer < Math.min(layers, mostLayers); layer++) {
    total += kvHeads(layer) * perHead * float16Bytes;
  }
  return total;
}

/** Parts of a model that stand before the layers and are looked up by token or position. */
const inputNames = /^(token_embd|token_embd_norm|position_embd|token_types|per_layer_token_embd)(\.|$)/;
const layerName = /(?:^|\.)blk\.(\d{1,4})\./;

/** Layer index of a tensor: -1 for the input part, the number of layers for everything behind them. */
export function layerOf(name: string, layers: number): number {
  const layer = layerName.exec(name)?.[1];
  if (layer !== undefined) return Math.min(Number(layer), layers);
  return inputNames.test(name) ? -1 : layers;
}

/** One more than the highest layer that a name tells. */
export function layersNamed(tensors: readonly { readonly name: string }[]): number {
  return tensors.reduce((most, { name }) => Math.max(most, Number(layerName.exec(name)?.[1] ?? -1) + 1), 0);
}

/** Tensor entries of the manifest, in the order of weights.bin. */
export function tensorEntries(placed: readonly PlacedTensor[], layers: number): TensorEntry[] {
  return placed.map(({ tensor, offset }) => ({
    name: tensor.name,
    dtype: tensor.type.name,
    shape: [...tensor.shape],
    layer: layerOf(tensor.name, layers),
    offset,
    bytes: tensor.bytes,
  }));
}
