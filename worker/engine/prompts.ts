/** What a request becomes for the native engine: prompt tokens, the constraint of its answer, and its reader. */
import type { NativeChat, NativeEngine } from "../../native/bun-ffi-helpers/native.ts";
import type { AnswerFormat, PromptInput } from "../../schema/cluster/conversation.ts";
import type { ResumedOutput } from "../../schema/cluster/generate.ts";

/** What of a request decides them. */
export interface PromptSource {
  readonly prompt: PromptInput;
  readonly format?: AnswerFormat | undefined;
  readonly resume?: ResumedOutput | undefined;
}

export interface PreparedPrompt {
  readonly tokens: Int32Array;
  /** JSON for sllm_request; left out: anything goes. */
  readonly constraint: string | undefined;
  /** Stop strings that the model's format brings. */
  readonly stops: readonly string[];
  /** Takes the answer apart; null when its text is the message. To be disposed of. */
  readonly chat: NativeChat | null;
}

/**
 * Renders and tokenizes. Throws SllmNativeError for what the template, the schema or the grammar refuses. Control tokens
 * in a text count as such: chat templates are made of them, and completions may quote them.
 */
export function preparePrompt(
  engine: NativeEngine,
  { prompt, format, resume }: PromptSource,
): PreparedPrompt {
  // Tokens from before are taken as they are: a template may say something else today, the date for one.
  const toTokens = (text: string) => (resume ? Int32Array.from(resume.prompt) : tokenize(engine, text));
  if (prompt.kind === "text") {
    return { tokens: toTokens(prompt.text), constraint: toConstraint(format), stops: [], chat: null };
  }
  const { kind: _, ...conversation } = prompt;
  const json_schema = format?.kind === "json_schema" ? { json_schema: format.schema } : {};
  const chat = engine.openChat(JSON.stringify({ ...conversation, ...json_schema }));
  try {
    const { prompt: text, constraint, stops, plain } = chat.describe();
    // A grammar of the client's own is about the whole answer, as it comes.
    const isRaw = format?.kind === "grammar";
    const prepared = {
      tokens: toTokens(text),
      constraint: isRaw ? toConstraint(format) : (constraint ?? undefined),
      stops,
    };
    if (!plain && !isRaw) return { ...prepared, chat };
    chat[Symbol.dispose]();
    return { ...prepared, chat: null };
  } catch (error) {
    chat[Symbol.dispose]();
    throw error;
  }
}

function toConstraint(format: AnswerFormat | undefined): string | undefined {
  if (format === undefined) return undefined;
  return JSON.stringify(
    format.kind === "grammar" ? { grammar: format.grammar } : { json_schema: format.schema },
  );
}

function tokenize(engine: NativeEngine, text: string): Int32Array {
  return engine.tokenize(text, { add_special: true, parse_special: true });
}
