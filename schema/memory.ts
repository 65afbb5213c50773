/**
 * Memory that one instance takes on its device: the gateway books this number, the worker refuses by the same one.
 * An estimate from above, so that two instances that fit on paper fit in fact. Pure.
 */
import type { ModelFacts } from "./checkpoint/manifest.ts";
import { limits } from "./limits.ts";

/** What of the model decides its memory beside the weights. */
export type MemoryFacts = Pick<
  ModelFacts,
  "embedding" | "vocabulary_tokens" | "kv_bytes_per_token" | "pooling"
>;

/** Activations alive at once during a step, counted in rows of the embedding's width. */
const activationRows = 16;
const float32Bytes = 4;

/** Bytes of a parked instance: the engine process with the vocabulary. Its weights count as the host tier's. */
export function parkedMemoryBytes(): number {
  return limits.engine_overhead_bytes;
}

/** What of an instance's settings decides its memory. */
export interface ContextSettings {
  /** Of one sequence. */
  readonly context_tokens: number;
  readonly slots: number;
  /** Cells of the KV cache for all slots together; without a number a whole context for each. */
  readonly kv_tokens?: number | null | undefined;
  readonly deterministic?: boolean | undefined;
}

/** The engine library rounds the cells of a sequence up to this. */
const cellsStep = 256;

function cells({ context_tokens, slots, kv_tokens, deterministic }: ContextSettings): number {
  if (!deterministic) return kv_tokens ?? slots * context_tokens;
  // Every slot has cells of its own, one more than its context, and there is a spare slot; see native/README.md.
  return (slots + 1) * Math.ceil((context_tokens + 1) / cellsStep) * cellsStep;
}

/**
 * Bytes of an instance: weights, KV cache of all slots, compute buffers of one step (activations and logits) and
 * the engine process itself. Weights count in full although instances of one checkpoint share them.
 */
export function instanceMemoryBytes(
  model: MemoryFacts,
  weights_bytes: number,
  settings: ContextSettings,
): number {
  if (model.pooling !== undefined) {
    // Whole inputs in one step, which is all that the cache holds; no logits.
    const rows = Math.max(limits.batch_tokens, settings.context_tokens);
    const rowBytes = activationRows * model.embedding * float32Bytes + model.kv_bytes_per_token;
    return weights_bytes + rows * rowBytes + limits.engine_overhead_bytes;
  }
  const kvBytes = cells(settings) * model.kv_bytes_per_token;
  const rowBytes = (activationRows * model.embedding + model.vocabulary_tokens) * float32Bytes;
  return weights_bytes + kvBytes + limits.batch_tokens * rowBytes + limits.engine_overhead_bytes;
}
