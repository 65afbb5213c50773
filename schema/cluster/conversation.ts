/** What an engine makes a prompt of, and what it finds in the answer: messages, tools, formats and their pieces. */
import { z } from "zod";
import { limits } from "../limits.ts";
import { messageRoles } from "../vocab.ts";

/** Arguments are JSON text, as models write them. */
export const toolCall = z.strictObject({ id: z.string(), name: z.string(), arguments: z.string() });

export const message = z.strictObject({
  role: z.enum(messageRoles),
  content: z.string().nullable(),
  reasoning_content: z.string().optional(),
  tool_calls: z.array(toolCall).max(limits.tool_calls).optional(),
  /** Of a tool's answer: the call it belongs to. */
  tool_call_id: z.string().optional(),
  name: z.string().optional(),
});
export type Message = z.infer<typeof message>;

/** JSON of any shape; its bounds were checked where it entered the system. */
const jsonObject = z.record(z.string(), z.unknown());

export const tool = z.strictObject({
  name: z.string(),
  description: z.string().optional(),
  /** JSON schema. */
  parameters: jsonObject,
});
export type Tool = z.infer<typeof tool>;

export const toolChoices = ["auto", "required", "none"] as const;

/** What the whole answer must look like. */
export const answerFormat = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("json_schema"), schema: jsonObject }),
  /** GBNF with the rule `root`. */
  z.strictObject({ kind: z.literal("grammar"), grammar: z.string() }),
]);
export type AnswerFormat = z.infer<typeof answerFormat>;

export const promptInput = z.discriminatedUnion("kind", [
  /** Rendered by the model's chat template in the engine. */
  z.strictObject({
    kind: z.literal("messages"),
    messages: z.array(message).min(1),
    tools: z.array(tool).max(limits.tools).optional(),
    tool_choice: z.enum(toolChoices).optional(),
    parallel_tool_calls: z.boolean().optional(),
    template_arguments: jsonObject.optional(),
  }),
  z.strictObject({ kind: z.literal("text"), text: z.string() }),
]);
export type PromptInput = z.infer<typeof promptInput>;

/** More of one tool call. Its name comes whole and first, its arguments in pieces. */
export const toolCallDelta = z.strictObject({
  index: z.number().int().min(0),
  name: z.string().optional(),
  arguments: z.string().optional(),
});
export type ToolCallDelta = z.infer<typeof toolCallDelta>;

/** What some tokens add to a message that the engine takes apart; nothing at all while a marker is half written. */
export const messageDelta = z.strictObject({
  content: z.string().optional(),
  reasoning_content: z.string().optional(),
  tool_calls: z.array(toolCallDelta).optional(),
});
export type MessageDelta = z.infer<typeof messageDelta>;
