/** Texts from outside, made fit for a column. */
import type { StoreProblem } from "../../schema/cluster/membership.ts";
import { limits } from "../../schema/limits.ts";

/** Problems of a store as a row can hold them. */
export function storableProblems(problems: readonly StoreProblem[]): StoreProblem[] {
  return problems.map(({ checkpoint, error }) => ({
    checkpoint,
    error: { code: error.code, message: storableMessage(error.message) },
  }));
}

/**
 * An error message as a row can hold it: bounded, without NUL, well-formed. It may quote an engine's last words, and
 * must never be the reason why the end of an instance cannot be recorded.
 */
export function storableMessage(message: string): string {
  const bounded = message.slice(0, limits.error_message_chars).replaceAll("\0", "\uFFFD");
  return new TextDecoder().decode(new TextEncoder().encode(bounded));
}
