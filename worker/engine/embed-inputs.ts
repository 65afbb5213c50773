/** The inputs of a request for vectors as tokens, checked against what the engine's model is for. */
import type { NativeEngine } from "../../native/bun-ffi-helpers/native.ts";
import type { EngineCommand } from "../../schema/cluster/engine.ts";
import type { WireError } from "../../schema/error.ts";
import type { ModelTask } from "../../schema/vocab.ts";

type EmbedCommand = Extract<EngineCommand, { op: "embed" }>;

/** SLLM_POOLING_RANK and SLLM_POOLING_NONE. */
const rankPooling = 4;
const noPooling = 0;

/** What an engine whose pooling has this number does. */
export function taskOfPooling(pooling: number): ModelTask {
  if (pooling === noPooling) return "generate";
  return pooling === rankPooling ? "rerank" : "embed";
}

/** A refusal when the model's task is another one. */
export function refuseTask(task: ModelTask, wanted: ModelTask): WireError | null {
  if (task === wanted) return null;
  return { code: "task_unsupported", message: `The task of this model is '${task}', not '${wanted}'.` };
}

/** Tokens of each input, or why not. Throws SllmNativeError for what the library refuses. */
export function tokenizeInputs(
  engine: Pick<NativeEngine, "tokenize" | "tokenizePair">,
  command: EmbedCommand,
  context_tokens: number,
): Int32Array[] | WireError {
  const { inputs, query } = command;
  const tokenized: Int32Array[] = [];
  for (const [i, input] of inputs.entries()) {
    if (typeof input !== "string" && query !== undefined) {
      return { code: "invalid_request", message: "A document to be ranked must be text." };
    }
    const tokens = typeof input === "string" ? tokensOf(engine, input, query) : Int32Array.from(input);
    if (tokens.length === 0) return { code: "invalid_request", message: `Input ${i} has no tokens.` };
    if (tokens.length > context_tokens) {
      const message = `Input ${i} has ${tokens.length} tokens; the model reads ${context_tokens} at most.`;
      return { code: "context_length_exceeded", message };
    }
    tokenized.push(tokens);
  }
  return tokenized;
}

function tokensOf(
  engine: Pick<NativeEngine, "tokenize" | "tokenizePair">,
  text: string,
  query: string | undefined,
): Int32Array {
  if (query !== undefined) return engine.tokenizePair(query, text);
  return engine.tokenize(text, { add_special: true, parse_special: true });
}
