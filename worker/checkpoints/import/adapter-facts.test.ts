import { describe, expect, test } from "bun:test";
import { SllmError } from "../../../schema/error.ts";
import { type AdapterWish, adapterParts } from "../../../test/models/generator/adapter.ts";
import type { GgufFileTensor, MetadataPair } from "../../../test/models/generator/gguf-file.ts";
import { encodeFile, floatTensor, leastMetadata, MemorySource } from "../../../test/support/gguf.ts";
import { adapterFactsOf, saysAdapter } from "./adapter-facts.ts";
import { readGguf } from "./gguf-reader.ts";

const target = { name: "blk.0.attn_q.weight", columns: 8, rows: 6 };
const wish: AdapterWish = { seed: 1, rank: 2, alpha: 3, targets: [target] };

async function factsOf(pairs: readonly MetadataPair[], tensors: readonly GgufFileTensor[]) {
  const header = await readGguf(new MemorySource(encodeFile(pairs, tensors)));
  return adapterFactsOf(header.pairs, header.tensors);
}

/** The refusal of an adapter with these changes. */
async function refusal(change: Partial<AdapterWish>, tensors?: readonly GgufFileTensor[]) {
  const parts = adapterParts({ ...wish, ...change });
  const thrown = await factsOf(parts.pairs, tensors ?? parts.tensors).catch((error: unknown) => error);
  if (!(thrown instanceof SllmError)) throw new Error(`not refused: ${thrown}`);
  return `${thrown.code}: ${thrown.message}`;
}

test("the facts of an adapter are those of its header and tensors", async () => {
  const { pairs, tensors } = adapterParts(wish);
  expect(await factsOf(pairs, tensors)).toEqual({
    kind: "lora",
    architecture: "llama",
    name: "Random adapter 1",
    parameters: 2 * 8 + 2 * 6,
    rank: 2,
    alpha: 3,
    quantisation: "F32",
  });
});

test("the rank is the largest; embeddings have theirs the other way round", async () => {
  const { pairs, tensors } = adapterParts(wish);
  const embedding = [
    floatTensor("token_embd.weight.lora_a", [5, 40]),
    floatTensor("token_embd.weight.lora_b", [5, 8]),
    floatTensor("output_norm.weight", [8]),
  ];
  expect(await factsOf(pairs, [...tensors, ...embedding])).toMatchObject({ rank: 5 });
});

test("a file says itself whether it is an adapter", async () => {
  const { pairs } = await readGguf(new MemorySource(encodeFile()));
  expect(saysAdapter(pairs)).toBe(false);
  const adapter = adapterParts(wish);
  const header = await readGguf(new MemorySource(encodeFile(adapter.pairs, adapter.tensors)));
  expect(saysAdapter(header.pairs)).toBe(true);
});

describe("what the engine library would refuse, or end its process for, is refused by name", () => {
  test.each([
    [
      "another kind of adapter",
      [["adapter.type", "string", "control_vector"]],
      /unsupported.*control_vector/,
    ],
    ["no alpha", [["adapter.lora.alpha", "float32", Number.NaN]], /invalid.*adapter\.lora\.alpha/],
    [
      "an alpha that is a whole number",
      [["adapter.lora.alpha", "uint32", 4]],
      /invalid.*adapter\.lora\.alpha/,
    ],
    ["an alpha that is text", [["adapter.lora.alpha", "string", "4"]], /invalid.*adapter\.lora\.alpha/],
    ["an architecture that is no text", [["general.architecture", "uint32", 4]], /general\.architecture/],
    ["an activated adapter", [["adapter.alora.invocation_tokens", "ints", [1, 2]]], /unsupported.*activated/],
  ] satisfies [string, MetadataPair[], RegExp][])("%s", async (_, metadata, message) => {
    expect(await refusal({ metadata })).toMatch(message);
  });

  const a = floatTensor("blk.0.attn_q.weight.lora_a", [8, 2]);
  const b = floatTensor("blk.0.attn_q.weight.lora_b", [2, 6]);
  test.each([
    ["a factor without its other one", [a], /invalid.*blk\.0\.attn_q\.weight.*only one/],
    ["the other one alone", [b], /invalid.*blk\.0\.attn_q\.weight.*only one/],
    [
      "factors of different ranks",
      [a, { ...floatTensor(b.name, [3, 6]) }],
      /invalid.*different ranks, 2 and 3/,
    ],
    ["a tensor that is no factor", [a, b, floatTensor("blk.0.attn_q.weight", [8, 6])], /invalid.*no part of/],
    ["a type that adapters are not made in", [{ ...a, type: 26 }, b], /unsupported.*lora_a.*I32/],
    ["nothing but norms", [floatTensor("output_norm.weight", [8])], /invalid.*changes no tensor/],
  ] satisfies [string, GgufFileTensor[], RegExp][])("%s", async (_, tensors, message) => {
    expect(await refusal({}, tensors)).toMatch(message);
  });

  test("a file with nothing of an adapter's metadata", async () => {
    const thrown = await factsOf(leastMetadata, [a, b]).catch((error: unknown) => error);
    expect(thrown).toMatchObject({ code: "checkpoint_unsupported" });
  });
});
