/**
 * Public OpenAI-shaped completion requests; the answers are in answers.ts. Unknown fields pass (clients send many); fields that
 * would change the answer and are not offered yet are refused by name instead of being ignored.
 */
import { z } from "zod";
import { SllmError } from "../error.ts";
import { limits } from "../limits.ts";
import { chatMessage, chatTool, toolChoice } from "./conversation.ts";
import { grammar, responseFormat } from "./formats.ts";
import { wholeFrom } from "./ranges.ts";
import { requestFields } from "./request-fields.ts";

export const chatRequest = z
  .looseObject({
    ...requestFields,
    messages: z.array(chatMessage).min(1).max(limits.chat_messages),
    max_completion_tokens: wholeFrom(1, limits.output_tokens).nullish(),
    logprobs: z.boolean().nullish(),
    top_logprobs: wholeFrom(0, limits.top_logprobs).nullish(),
    tools: z.array(chatTool).max(limits.tools).nullish(),
    tool_choice: toolChoice.nullish(),
    parallel_tool_calls: z.boolean().nullish(),
    response_format: responseFormat.nullish(),
    /** Extension: GBNF with the rule `root`, for the whole answer. */
    grammar: grammar.nullish(),
    /** Extension: variables of the model's chat template, such as `enable_thinking`. */
    chat_template_kwargs: z
      .record(z.string(), z.unknown())
      .refine((values) => JSON.stringify(values).length <= limits.template_arguments_bytes, {
        message: `at most ${limits.template_arguments_bytes} characters`,
      })
      .nullish(),
  })
  .superRefine((body, context) => {
    const refuse = (path: string, message: string) =>
      context.addIssue({ code: "custom", path: [path], message });
    const hasTools = (body.tools?.length ?? 0) > 0 && body.tool_choice !== "none";
    const hasFormat = body.response_format != null && body.response_format.type !== "text";
    if (body.top_logprobs && body.logprobs !== true) refuse("top_logprobs", "needs logprobs: true");
    if (body.grammar && (hasTools || hasFormat))
      refuse("grammar", "cannot be combined with tools or response_format");
    if (hasTools && hasFormat) refuse("response_format", "cannot be combined with tools");
    if ((body.grammar || hasFormat || hasTools) && body.ignore_eos)
      refuse("ignore_eos", "cannot be combined with grammar, response_format or tools");
    const { tool_choice } = body;
    if (tool_choice == null || tool_choice === "auto" || tool_choice === "none") return;
    if (!hasTools) refuse("tool_choice", "there are no tools to choose from");
    else if (
      typeof tool_choice === "object" &&
      !body.tools?.some((t) => t.function.name === tool_choice.function.name)
    )
      refuse("tool_choice", `there is no tool named ${tool_choice.function.name}`);
  });
export type ChatRequest = z.output<typeof chatRequest>;

export const completionRequest = z
  .looseObject({
    ...requestFields,
    prompt: z.union([z.string(), z.tuple([z.string()]).transform(([text]) => text)]),
    /** Log-probabilities of each token and of so many likeliest ones. */
    logprobs: wholeFrom(0, limits.top_logprobs).nullish(),
    /** Extension, as in chats. */
    response_format: responseFormat.nullish(),
    /** Extension, as in chats. */
    grammar: grammar.nullish(),
  })
  .superRefine((body, context) => {
    const hasFormat = body.response_format != null && body.response_format.type !== "text";
    if (body.grammar && hasFormat)
      context.addIssue({
        code: "custom",
        path: ["grammar"],
        message: "cannot be combined with response_format",
      });
    if ((body.grammar || hasFormat) && body.ignore_eos)
      context.addIssue({
        code: "custom",
        path: ["ignore_eos"],
        message: "cannot be combined with grammar or response_format",
      });
  });
export type CompletionRequest = z.output<typeof completionRequest>;

/** Parameter -> true when the value asks for nothing beyond what is offered. */
const neutralValues: Record<string, (value: unknown) => boolean> = {
  best_of: (v) => v === 1,
  echo: (v) => v === false,
  suffix: () => false,
  functions: (v) => Array.isArray(v) && v.length === 0,
  modalities: (v) => Array.isArray(v) && v.every((m) => m === "text"),
  audio: () => false,
  // Samplers whose state does not follow from the tokens: a generation could not go on elsewhere.
  mirostat: (v) => v === 0,
  adaptive_target: () => false,
  adaptive_decay: () => false,
  xtc_probability: (v) => v === 0,
  // Samplers that are not offered.
  dry_multiplier: (v) => v === 0,
  dynatemp_range: (v) => v === 0,
  top_n_sigma: (v) => typeof v === "number" && v <= 0,
};

/** Throws `unsupported_parameter` for a parameter that would have to change the answer. */
export function refuseUnsupported(body: Readonly<Record<string, unknown>>): void {
  for (const [name, isNeutral] of Object.entries(neutralValues)) {
    const value = body[name];
    if (value === undefined || value === null || isNeutral(value)) continue;
    throw new SllmError("unsupported_parameter", `${name}: this value is not supported`, { param: name });
  }
}
