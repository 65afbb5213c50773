/** The kinds of GGUF files that become checkpoints: what the manifest says of them, and how their tensors lie. */
import {
  type AdapterFacts,
  type AdapterManifest,
  type AnyManifest,
  adapterManifest,
  isAdapter,
  isModel,
  type Manifest,
  type ModelFacts,
  manifest,
} from "../../../schema/checkpoint/manifest.ts";
import { SllmError } from "../../../schema/error.ts";
import { adapterFactsOf, saysAdapter } from "./adapter-facts.ts";
import { factsOf, layersNamed } from "./facts.ts";
import type { GgufModel, SourceTensor } from "./gguf-splits.ts";
import { canonicalOrder, type LayoutPlanner } from "./layout.ts";

export type CheckpointFacts = { readonly model: ModelFacts } | { readonly adapter: AdapterFacts };

export interface CheckpointKind<M extends AnyManifest> {
  /** Errors: `checkpoint_invalid`, `checkpoint_unsupported`, also for a file of the other kind. */
  facts(file: GgufModel): CheckpointFacts;
  /** Tensors in the order of weights.bin. `folder` takes a temporary file. Errors: those of the planner. */
  order(
    file: GgufModel,
    folder: string,
    plan: LayoutPlanner,
    signal: AbortSignal | undefined,
  ): Promise<SourceTensor[]>;
  parse(value: unknown): M;
  is(manifest: AnyManifest): manifest is M;
}

export const modelKind: CheckpointKind<Manifest> = {
  facts({ pairs, tensors }) {
    if (!saysAdapter(pairs)) return { model: factsOf(pairs, tensors) };
    const message = "The file holds a LoRA adapter, no model: 'sllm adapter add' gives it to one.";
    throw new SllmError("checkpoint_unsupported", message);
  },
  order: ({ pairs, tensors }, folder, plan, signal) => canonicalOrder(pairs, tensors, folder, plan, signal),
  parse: (value) => manifest.parse(value),
  is: isModel,
};

export const adapterKind: CheckpointKind<AdapterManifest> = {
  facts({ pairs, tensors }) {
    if (saysAdapter(pairs)) return { adapter: adapterFactsOf(pairs, tensors) };
    const message = "The file holds no LoRA adapter (general.type is not 'adapter').";
    throw new SllmError("checkpoint_unsupported", message);
  },
  // The engine finds an adapter's tensors by their names: any order that the content alone decides will do.
  order: async ({ tensors }) => tensors.toSorted((a, b) => (a.name < b.name ? -1 : 1)),
  parse: (value) => adapterManifest.parse(value),
  is: isAdapter,
};

/** Layers that the entries of the manifest count by. */
export function layersOf(facts: CheckpointFacts, tensors: readonly { readonly name: string }[]): number {
  return "model" in facts ? facts.model.layers : layersNamed(tensors);
}
