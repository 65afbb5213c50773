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
  /** The device's engines repack: see `DeviceReport`. */
  readonly repacks?: boolean | undefined;
  /** Booked for adapters; none if left out. */
  readonly adapter_bytes?: number | undefined;
}

/** Whether an engine computes on a repacked copy: answers of the deterministic mode are those of the file's layout. */
export function isRepacked({
  repacks,
  deterministic,
}: Pick<ContextSettings, "repacks" | "deterministic">): boolean {
  return repacks === true && deterministic !== true;
}

/** The engine library rounds the cells of a sequence up to this. */
const cellsStep = 256;

function cells({ context_tokens, slots, kv_tokens, deterministic }: ContextSettings): number {
  if (!deterministic) return kv_tokens ?? slots * context_tokens;
  // Every slot has cells of its own, one more than its context, and there is a spare slot; see native/README.md.
  return (slots + 1) * Math.ceil((context_tokens + 1) / cellsStep) * cellsStep;
}

/** Memory of an adapter in an engine: its weights, though engines on the processors share the pages of the host copy. */
export function adapterMemoryBytes({ weights_bytes }: { readonly weights_bytes: number }): number {
  return weights_bytes;
}

/** What a new instance books for the adapters of its model: as many as stay in memory, the largest of them. */
export function bookedAdapterBytes(adapters: readonly { readonly weights_bytes: number }[]): number {
  return adapters
    .map(adapterMemoryBytes)
    .toSorted((a, b) => b - a)
    .slice(0, limits.resident_adapters)
    .reduce((sum, bytes) => sum + bytes, 0);
}

/**
 * Bytes of an instance: weights and perhaps a repacked copy, KV cache of all slots, compute buffers of one step
 * (activations and logits), booked adapters and the engine process itself. Weights count in full although instances of
 * one checkpoint share them.
 */
export function instanceMemoryBytes(
  model: MemoryFacts,
  weights_bytes: number,
  settings: ContextSettings,
): number {
  const copies = isRepacked(settings) ? 2 : 1;
  const fixedBytes = copies * weights_bytes + (settings.adapter_bytes ?? 0) + limits.engine_overhead_bytes;
  if (model.pooling !== undefined) {
    // Whole inputs in one step, which is all that the cache holds; no logits.
    const rows = Math.max(limits.batch_tokens, settings.context_tokens);
    const rowBytes = activationRows * model.embedding * float32Bytes + model.kv_bytes_per_token;
    return fixedBytes + rows * rowBytes;
  }
  const kvBytes = cells(settings) * model.kv_bytes_per_token;
  const rowBytes = (activationRows * model.embedding + model.vocabulary_tokens) * float32Bytes;
  return fixedBytes + kvBytes + limits.batch_tokens * rowBytes;
}
