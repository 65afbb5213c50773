/** Tokenizers for generated models: the sample model's, or a synthetic one of any size. */
import { join } from "node:path";
import { FileSource } from "../../../worker/checkpoints/import/byte-source.ts";
import { readGguf } from "../../../worker/checkpoints/import/gguf-reader.ts";
import type { MetadataPair } from "./gguf-file.ts";

export const sampleModelPath = join(import.meta.dirname, "../tiny-shakespeare-3m-f16.gguf");
export const sampleTokens = 1024;

const chatTemplate =
  "{% for m in messages %}{{ m['role'] | upper }}:\n{{ m['content'] }}\n\n{% endfor %}" +
  "{% if add_generation_prompt %}ASSISTANT:\n{% endif %}";

/** Metadata of the sample model's tokenizer and chat template. */
export async function sampleVocabulary(): Promise<MetadataPair[]> {
  const source = await FileSource.open(sampleModelPath);
  try {
    const { pairs } = await readGguf(source);
    return pairs
      .filter((pair) => pair.key.startsWith("tokenizer."))
      .map((pair) => [pair.key, "raw", { type: pair.type, bytes: pair.raw }]);
  } finally {
    await source.close();
  }
}

const specialTokens = ["<unk>", "<s>", "</s>"];
const byteTokens = Array.from(
  { length: 256 },
  (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`,
);
/** Smallest synthetic vocabulary: special tokens and bytes, so that every text can be written. */
export const leastSyntheticTokens = specialTokens.length + byteTokens.length;

/** A SentencePiece vocabulary of made-up words with byte fallback. */
export function syntheticVocabulary(tokens: number): MetadataPair[] {
  if (tokens < leastSyntheticTokens)
    throw new RangeError(`a vocabulary needs ${leastSyntheticTokens} tokens`);
  const words = Array.from({ length: tokens - leastSyntheticTokens }, (_, i) => `\u2581w${i.toString(36)}`);
  const scores = Array.from({ length: tokens }, (_, i) => Math.min(0, leastSyntheticTokens - i));
  const kinds = [2, 3, 3, ...byteTokens.map(() => 6), ...words.map(() => 1)];
  return [
    ["tokenizer.ggml.model", "string", "llama"],
    ["tokenizer.ggml.pre", "string", "default"],
    ["tokenizer.ggml.tokens", "strings", [...specialTokens, ...byteTokens, ...words]],
    ["tokenizer.ggml.scores", "floats", scores],
    ["tokenizer.ggml.token_type", "ints", kinds],
    ["tokenizer.ggml.bos_token_id", "uint32", 1],
    ["tokenizer.ggml.eos_token_id", "uint32", 2],
    ["tokenizer.ggml.unknown_token_id", "uint32", 0],
    ["tokenizer.ggml.add_bos_token", "bool", false],
    ["tokenizer.ggml.add_space_prefix", "bool", false],
    ["tokenizer.chat_template", "string", chatTemplate],
  ];
}
