/**
 * What an adapter's manifest says of it, and whether its header is one that the engine library can read: a value of
 * another type than it expects would end the engine's process.
 */
import { type AdapterFacts, adapterFacts } from "../../../schema/checkpoint/manifest.ts";
import { SllmError } from "../../../schema/error.ts";
import { commonestType } from "./facts.ts";
import { GgufMetadata } from "./gguf-metadata.ts";
import type { GgufPair, GgufTensor } from "./gguf-reader.ts";
import { quoted } from "./header-cursor.ts";

const mostNameChars = 512;

/** What adapters are made in; the engine multiplies with these on every device. */
const tensorTypes: ReadonlySet<string> = new Set(["F32", "F16", "BF16", "Q8_0"]);

/** `<tensor of the model>.lora_a` and `.lora_b`: the two factors of what is added to it. */
const factorName = /^(.+)\.lora_([ab])$/;

/** Whether a file says of itself that it is an adapter and no model. */
export function saysAdapter(pairs: readonly GgufPair[]): boolean {
  return new GgufMetadata(pairs).text("general.type") === "adapter";
}

/**
 * Facts of a LoRA adapter. Errors: `checkpoint_invalid` naming the metadata or the tensor that makes no sense,
 * `checkpoint_unsupported` for other kinds of adapters.
 */
export function adapterFactsOf(pairs: readonly GgufPair[], tensors: readonly GgufTensor[]): AdapterFacts {
  const metadata = new GgufMetadata(pairs);
  const architecture = metadata.text("general.architecture");
  if (architecture === null) throw invalid("general.architecture is missing");
  const kind = metadata.text("adapter.type");
  if (kind !== "lora") throw unsupported(`its adapter.type is ${quoted(kind ?? "")}, not "lora"`);
  if (metadata.has("adapter.alora.invocation_tokens")) {
    throw unsupported("it is an activated LoRA, which works on a part of the prompt only");
  }
  const alpha = metadata.float32("adapter.lora.alpha");
  if (alpha === null || !Number.isFinite(alpha)) throw invalid("adapter.lora.alpha is not a finite number");
  const facts = adapterFacts.safeParse({
    kind,
    architecture,
    name: (metadata.text("general.name") ?? architecture).slice(0, mostNameChars),
    parameters: tensors.reduce((sum, tensor) => sum + tensor.elements, 0),
    rank: Math.max(...ranksOf(tensors)),
    alpha,
    quantisation: commonestType(tensors),
  } satisfies AdapterFacts);
  if (facts.success) return facts.data;
  const issue = facts.error.issues[0];
  throw invalid(`${issue?.path.join(".") ?? "metadata"}: ${issue?.message ?? "invalid"}`);
}

/** Ranks of all pairs of factors. */
function ranksOf(tensors: readonly GgufTensor[]): number[] {
  const named = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const ranks: number[] = [];
  for (const tensor of tensors) {
    if (tensor.name.endsWith("_norm.weight")) continue; // The engine passes them by.
    const [, base, factor] = factorName.exec(tensor.name) ?? [];
    if (base === undefined) throw invalid(`the tensor ${quoted(tensor.name)} is no part of a LoRA adapter`);
    if (!tensorTypes.has(tensor.type.name)) {
      const known = [...tensorTypes].join(", ");
      throw unsupported(
        `the tensor ${quoted(tensor.name)} has the type ${tensor.type.name}, not one of ${known}`,
      );
    }
    if (factor === "b" && named.has(`${base}.lora_a`)) continue;
    const b = named.get(`${base}.lora_b`);
    if (factor === "b" || b === undefined) {
      throw invalid(`the tensor ${quoted(base)} has only one of lora_a and lora_b`);
    }
    ranks.push(rankOf(base, tensor.shape, b.shape));
  }
  if (ranks.length === 0) throw invalid("it changes no tensor");
  return ranks;
}

/** The inner dimension of the product, on which the factors must agree. Embeddings are looked up, so theirs is turned. */
function rankOf(base: string, a: readonly number[], b: readonly number[]): number {
  const rankOfA = (isLookedUp(base) ? a[0] : a[1]) ?? 1;
  const rankOfB = b[0] ?? 1;
  if (rankOfA === rankOfB) return rankOfA;
  throw invalid(`the tensor ${quoted(base)} has factors of different ranks, ${rankOfA} and ${rankOfB}`);
}

function isLookedUp(base: string): boolean {
  return base === "token_embd.weight";
}

function invalid(problem: string): SllmError {
  return new SllmError("checkpoint_invalid", `The adapter cannot be used: ${problem}.`);
}

function unsupported(problem: string): SllmError {
  return new SllmError("checkpoint_unsupported", `The adapter is not supported: ${problem}.`);
}
