/** What an answer may be asked to look like: `response_format` and a raw grammar, with bounds that keep both readable. */
import { z } from "zod";
import { limits } from "../limits.ts";

/** Levels of arrays and objects; stops counting one beyond the bound. */
function depthOf(value: unknown, bound: number): number {
  if (typeof value !== "object" || value === null) return 0;
  if (bound === 0) return 1;
  return 1 + Object.values(value).reduce((deepest, item) => Math.max(deepest, depthOf(item, bound - 1)), 0);
}

/** Counts that a schema asks for; as a grammar, more than the bound would hold without end. */
const countingNames = new Set(["minItems", "maxItems", "minLength", "maxLength"]);

function countsWithinBounds(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return true;
  return Object.entries(value).every(
    ([name, item]) =>
      !(countingNames.has(name) && typeof item === "number" && item > limits.grammar_repetitions) &&
      countsWithinBounds(item),
  );
}

/** A JSON schema. Its keywords are read by the engine, which says what it cannot turn into a grammar. */
export const jsonSchema = z
  .record(z.string(), z.unknown())
  .refine((schema) => depthOf(schema, limits.schema_depth) <= limits.schema_depth, {
    message: `at most ${limits.schema_depth} levels`,
    abort: true,
  })
  .refine((schema) => JSON.stringify(schema).length <= limits.schema_bytes, {
    message: `at most ${limits.schema_bytes} characters`,
  })
  .refine(countsWithinBounds, {
    message: `lengths and counts of items are at most ${limits.grammar_repetitions}`,
  });

export const responseFormat = z.discriminatedUnion("type", [
  z.looseObject({ type: z.literal("text") }),
  z.looseObject({ type: z.literal("json_object") }),
  z.looseObject({
    type: z.literal("json_schema"),
    json_schema: z.looseObject({
      name: z.string().max(64).optional(),
      /** Accepted for OpenAI's sake: what is generated always fits the schema. */
      strict: z.boolean().nullish(),
      schema: jsonSchema,
    }),
  }),
]);
export type ResponseFormat = z.output<typeof responseFormat>;

/** Parentheses inside each other and counts in braces, outside of literals and sets of characters. */
export function grammarProblem(text: string): string | null {
  let depth = 0;
  for (const [part] of text.matchAll(/"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*|[()]|\{[^}]*\}/gs)) {
    if (part === "(" && ++depth > limits.grammar_depth)
      return `at most ${limits.grammar_depth} parentheses inside each other`;
    if (part === ")") depth--;
    if (
      part.startsWith("{") &&
      [...part.matchAll(/\d+/g)].some(([n]) => Number(n) > limits.grammar_repetitions)
    )
      return `repetitions are at most ${limits.grammar_repetitions}`;
  }
  if (!/(?:^|\n)\s*root\s*::=/.test(text)) return "there is no rule named root";
  return null;
}

/** GBNF. What is wrong with it beyond these bounds is said by the engine. */
export const grammar = z
  .string()
  .min(1)
  .max(limits.grammar_bytes)
  .superRefine((text, context) => {
    const problem = grammarProblem(text);
    if (problem !== null) context.addIssue({ code: "custom", message: problem });
  });
