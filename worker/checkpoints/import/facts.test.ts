import { describe, expect, test } from "bun:test";
import type { MetadataPair } from "../../../test/models/generator/gguf-file.ts";
import {
  encodeFile,
  floatTensor,
  leastMetadata,
  leastTensors,
  MemorySource,
} from "../../../test/support/gguf.ts";
import { factsOf, layerOf } from "./facts.ts";
import { readGguf } from "./gguf-reader.ts";

async function facts(
  changes: readonly MetadataPair[],
  without: readonly string[] = [],
  tensors = leastTensors,
) {
  const changed = new Set([...changes.map(([key]) => key), ...without]);
  const pairs = [...leastMetadata.filter(([key]) => !changed.has(key)), ...changes];
  const header = await readGguf(new MemorySource(encodeFile(pairs, tensors)));
  return factsOf(header.pairs, header.tensors);
}

describe("facts of a model", () => {
  test("come from its metadata and tensors", async () => {
    expect(await facts([])).toEqual({
      architecture: "llama",
      name: "least",
      parameters: 192 + 65 + 64,
      layers: 1,
      embedding: 64,
      vocabulary_tokens: 3,
      context_tokens: 128,
      quantisation: "F32",
      kv_bytes_per_token: 2 * (16 + 16) * 2,
      chat_template_sha256: null,
    });
  });

  test("hold the digest of the chat template", async () => {
    const found = await facts([["tokenizer.chat_template", "string", "{{ messages }}"]]);
    // printf '{{ messages }}' | sha256sum
    const digest = "f24189f08c85a1eb19a737306c3a13e85462ee33d964f28108d64a2485fa2171";
    expect(found.chat_template_sha256).toBe(digest);
  });

  test("name the pooling of a model that makes vectors, and none of others", async () => {
    const pooled = async (number: number) =>
      (await facts([["llama.pooling_type", "uint32", number]])).pooling;
    expect(await Promise.all([1, 2, 3, 4].map(pooled))).toEqual(["mean", "cls", "last", "rank"]);
    expect(await Promise.all([0, 5].map(pooled))).toEqual([undefined, undefined]);
  });

  test("take the size of the vocabulary from the token table when there is no tokenizer", async () => {
    expect((await facts([], ["tokenizer.ggml.tokens"])).vocabulary_tokens).toBe(3);
    const stated = await facts([["llama.vocab_size", "uint32", 7]], ["tokenizer.ggml.tokens"]);
    expect(stated.vocabulary_tokens).toBe(7);
  });

  test("use the architecture's name for a model without one and cut long names", async () => {
    expect((await facts([], ["general.name"])).name).toBe("llama");
    expect((await facts([["general.name", "string", "n".repeat(2000)]])).name).toHaveLength(512);
  });

  test.each([
    ["general.architecture", "general.architecture is missing"],
    ["llama.block_count", "llama.block_count is missing"],
    ["llama.embedding_length", "llama.embedding_length is missing"],
    ["llama.context_length", "llama.context_length is missing"],
  ])("cannot be given without %s", async (key, message) => {
    await expect(facts([], [key])).rejects.toThrow(message);
  });

  test.each<[MetadataPair, string]>([
    [["llama.block_count", "uint32", 0], "layers"],
    [["llama.block_count", "uint32", 513], "layers"],
    [["llama.block_count", "string", "many"], "not a whole number"],
    [["llama.context_length", "float32", 128], "not a whole number"],
    [["llama.context_length", "int32", -1], "not a whole number"],
    [["general.architecture", "uint32", 1], "not a string"],
    [["tokenizer.ggml.tokens", "uint32", 1], "not an array"],
    [["tokenizer.chat_template", "strings", ["a"]], "not a string"],
    [["llama.attention.head_count", "strings", ["a"]], "an array of at most 512 numbers"],
  ])("refuse %p", async (pair, message) => {
    await expect(facts([pair])).rejects.toThrow(message);
  });
});

describe("the KV cache of a token", () => {
  const layers = ["llama.block_count", "uint32", 3] as const;

  test("follows head counts that differ by layer", async () => {
    const found = await facts([layers, ["llama.attention.head_count_kv", "ints", [4, 0, 1]]]);
    expect(found.kv_bytes_per_token).toBe((4 + 0 + 1) * (16 + 16) * 2);
  });

  test("has as many heads as there are queries when nothing else is said", async () => {
    const found = await facts([layers], ["llama.attention.head_count_kv"]);
    expect(found.kv_bytes_per_token).toBe(3 * 4 * 32 * 2);
  });

  test("follows stated lengths of keys and values, the longer of two kinds of layers", async () => {
    const lengths: MetadataPair[] = [
      ["llama.attention.key_length", "uint32", 24],
      ["llama.attention.value_length", "uint32", 8],
      ["llama.attention.key_length_swa", "uint32", 40],
    ];
    expect((await facts(lengths)).kv_bytes_per_token).toBe(2 * (40 + 8) * 2);
  });

  test("is nothing for a model without attention", async () => {
    const heads = ["llama.attention.head_count", "llama.attention.head_count_kv"];
    expect((await facts([], heads)).kv_bytes_per_token).toBe(0);
  });
});

test("the type with most bytes names the quantisation", async () => {
  const half = { ...floatTensor("output.weight", [4096]), type: 1 };
  expect((await facts([], [], [...leastTensors, half])).quantisation).toBe("F16");
});

test.each([
  ["token_embd.weight", -1],
  ["token_embd_norm.weight", -1],
  ["per_layer_token_embd.weight", -1],
  ["position_embd.weight", -1],
  ["blk.0.attn_q.weight", 0],
  ["blk.39.ffn_up.weight", 39],
  ["dec.blk.7.attn_q.weight", 7],
  ["blk.41.nextn.eh_proj.weight", 40],
  ["blk.9999.x", 40],
  ["output_norm.weight", 40],
  ["output.weight", 40],
  ["rope_freqs.weight", 40],
])("the tensor %s of a model with 40 layers belongs to part %p", (name, layer) => {
  expect(layerOf(name, 40)).toBe(layer);
});
