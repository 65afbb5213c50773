/** A chat request as the conversation that an engine renders: messages, and tools with what may be done with them. */
import type { ChatRequest } from "../../schema/api/chat.ts";
import type { ChatMessage, ChatTool, ToolChoice } from "../../schema/api/conversation.ts";
import type { Message, PromptInput, Tool } from "../../schema/cluster/conversation.ts";

type Conversation = Extract<PromptInput, { kind: "messages" }>;

export function toConversation(body: ChatRequest): Conversation {
  const choice = body.tool_choice ?? "auto";
  const tools = choice === "none" ? [] : offered(body.tools ?? [], choice);
  return {
    kind: "messages",
    messages: body.messages.map(toMessage),
    ...(tools.length === 0
      ? {}
      : {
          tools: tools.map(toTool),
          tool_choice: typeof choice === "object" ? "required" : choice,
          parallel_tool_calls: body.parallel_tool_calls ?? true,
        }),
    ...(body.chat_template_kwargs == null ? {} : { template_arguments: body.chat_template_kwargs }),
  };
}

/** A named tool is a required call with no other to choose from. */
function offered(tools: readonly ChatTool[], choice: ToolChoice): readonly ChatTool[] {
  if (typeof choice !== "object") return tools;
  return tools.filter((tool) => tool.function.name === choice.function.name);
}

function toMessage(message: ChatMessage): Message {
  const { role, content, reasoning_content, tool_calls, tool_call_id, name } = message;
  return {
    role,
    content,
    ...(reasoning_content == null ? {} : { reasoning_content }),
    ...(tool_calls == null || tool_calls.length === 0
      ? {}
      : {
          tool_calls: tool_calls.map((call) => ({
            id: call.id,
            name: call.function.name,
            arguments: call.function.arguments,
          })),
        }),
    ...(tool_call_id == null ? {} : { tool_call_id }),
    ...(name == null ? {} : { name }),
  };
}

function toTool({ function: { name, description, parameters } }: ChatTool): Tool {
  return {
    name,
    ...(description == null ? {} : { description }),
    parameters: parameters ?? { type: "object", properties: {} },
  };
}
