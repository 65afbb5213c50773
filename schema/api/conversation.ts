/** Messages and tools of a chat request, in OpenAI's shape. */
import { z } from "zod";
import { limits } from "../limits.ts";
import { messageRoles } from "../vocab.ts";
import { jsonSchema } from "./formats.ts";

const textPart = z.looseObject({ type: z.literal("text"), text: z.string() });
const content = z
  .union([z.string(), z.array(textPart).max(limits.chat_messages)])
  .nullish()
  .transform((value) =>
    value == null ? null : typeof value === "string" ? value : value.map((part) => part.text).join("\n"),
  );

/** A name as functions have them, so that it stands in a grammar and in a prompt without quoting. */
const toolName = z
  .string()
  .regex(/^[\w.-]{1,64}$/, "a tool's name has 1 to 64 letters, digits, underscores, dots and dashes");

const toolCall = z.looseObject({
  id: z.string().max(256),
  type: z.literal("function"),
  function: z.looseObject({ name: toolName, arguments: z.string() }),
});

export const chatMessage = z
  .looseObject({
    role: z.enum(messageRoles),
    content,
    reasoning_content: z.string().nullish(),
    tool_calls: z.array(toolCall).max(limits.tool_calls).nullish(),
    tool_call_id: z.string().max(256).nullish(),
    name: z.string().max(256).nullish(),
  })
  .refine((message) => message.content !== null || (message.tool_calls?.length ?? 0) > 0, {
    message: "a message has content or, from the assistant, tool calls",
    path: ["content"],
  });
export type ChatMessage = z.output<typeof chatMessage>;

export const chatTool = z.looseObject({
  type: z.literal("function"),
  function: z.looseObject({
    name: toolName,
    description: z.string().nullish(),
    /** Left out: the tool takes no arguments. */
    parameters: jsonSchema.nullish(),
  }),
});
export type ChatTool = z.output<typeof chatTool>;

export const toolChoice = z.union([
  z.enum(["auto", "required", "none"]),
  z.looseObject({ type: z.literal("function"), function: z.looseObject({ name: toolName }) }),
]);
export type ToolChoice = z.output<typeof toolChoice>;
