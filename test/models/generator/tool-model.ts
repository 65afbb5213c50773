/** The sample model with a chat template that knows tools: its text is as random as before, but grammars shape it. */
import { closeSync, openSync, readSync } from "node:fs";
import { FileSource } from "../../../worker/checkpoints/import/byte-source.ts";
import { readGguf } from "../../../worker/checkpoints/import/gguf-reader.ts";
import { type GgufFileTensor, type MetadataPair, writeGgufFile } from "./gguf-file.ts";
import { sampleModelPath, sampleTokens } from "./vocabulary.ts";

/** Messages between markers, tools as JSON in the system message, calls as JSON in tags: a common style. */
export const toolTemplate = `{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n' }}{%- endif %}
{{- 'Tools:\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' + tool | tojson }}{%- endfor %}
{{- '\\n</tools>\\nCall as <tool_call>\\n{"name": ..., "arguments": ...}\\n</tool_call><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- elif message.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' }}
{%- if message.content %}{{- message.content }}{%- endif %}
{%- for call in message.tool_calls or [] %}
{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}`;

/** Token that begins a call; it takes the place of the vocabulary's last one. */
export const toolCallToken = sampleTokens - 1;
/** Kind of a token that is text like any other, but never made of parts. */
const userDefined = 4;

/** Writes the model's GGUF file, with a template of its own if one is given, and a longer context than it was trained for. */
export async function writeToolModel(
  path: string,
  template = toolTemplate,
  context_tokens?: number,
): Promise<void> {
  const source = await FileSource.open(sampleModelPath);
  try {
    const { pairs, tensors } = await readGguf(source);
    const kept: MetadataPair[] = pairs
      .filter((pair) => pair.key !== "tokenizer.chat_template")
      .map((pair) => [
        ...([pair.key, "raw"] as const),
        { type: pair.type, bytes: withToolCall(pair.key, withContext(pair.key, pair.raw, context_tokens)) },
      ]);
    const copied = tensors.map(
      (tensor): GgufFileTensor => ({
        name: tensor.name,
        shape: tensor.shape,
        type: tensor.type.id,
        bytes: tensor.bytes,
        data: () => [readAt(tensor.file_offset, tensor.bytes)],
      }),
    );
    writeGgufFile(path, [...kept, ["tokenizer.chat_template", "string", template]], copied);
  } finally {
    await source.close();
  }
}

function withContext(key: string, raw: Uint8Array, context_tokens: number | undefined): Uint8Array {
  if (key !== "llama.context_length" || context_tokens === undefined) return raw;
  const changed = Buffer.alloc(4);
  changed.writeUInt32LE(context_tokens);
  return changed;
}

/** An array begins with its element type (4 bytes) and count (8 bytes); texts with their length (8 bytes). */
function withToolCall(key: string, raw: Uint8Array): Uint8Array {
  if (key === "tokenizer.ggml.token_type") {
    const changed = Buffer.from(raw);
    changed.writeInt32LE(userDefined, 12 + 4 * toolCallToken);
    return changed;
  }
  if (key !== "tokenizer.ggml.tokens") return raw;
  const view = Buffer.from(raw);
  let at = 12;
  for (let i = 0; i < toolCallToken; i++) at += 8 + Number(view.readBigUInt64LE(at));
  const text = Buffer.from("<tool_call>\n");
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([view.subarray(0, at), length, text]);
}

function readAt(offset: number, bytes: number): Uint8Array {
  const file = openSync(sampleModelPath, "r");
  try {
    const data = new Uint8Array(bytes);
    if (readSync(file, data, 0, bytes, offset) !== bytes)
      throw new Error("the sample model is shorter than it says");
    return data;
  } finally {
    closeSync(file);
  }
}
