/** `sllm chat`: a conversation in the terminal, or one answer for a pipe. */
import { createInterface } from "node:readline";
import { limits } from "../../../schema/limits.ts";
import type { Command } from "../command.ts";
import { CommandFailure, exitStatus } from "../failure.ts";
import { type ChatMessage, streamChat } from "../gateway/chat-stream.ts";
import type { GatewayTarget } from "../gateway/gateway-client.ts";
import { findTarget, urlArg } from "../gateway/target.ts";
import { readSettings } from "../settings/settings.ts";
import { settingsArgs, surroundingsOfProcess } from "../settings/surroundings.ts";
import { printLine, printNote } from "../terminal/output.ts";
import { createStatusLine } from "../terminal/progress.ts";

export const chat: Command = {
  name: "chat",
  summary: "Talk to a model",
  args: {
    name: { type: "positional", description: "Name of the model" },
    message: { type: "positional", required: false, description: "One message; a conversation if left out" },
    system: { type: "string", valueHint: "text", description: "System message at the beginning" },
    "max-tokens": { type: "string", valueHint: "n", description: "Longest answer" },
    ...urlArg,
    ...settingsArgs,
  },
  examples: [
    ["sllm chat tiny-shakespeare", "a conversation; Ctrl-C ends an answer, Ctrl-D the conversation"],
    ["sllm chat tiny-shakespeare 'To be, or not to be'", "one answer"],
  ],
  async run(args) {
    const flags = [{ flag: "--data-dir", path: ["data_dir"], value: args.text("data-dir") }] as const;
    const settings = readSettings(flags, args.text("config"), surroundingsOfProcess());
    const system = args.text("system");
    const max_tokens = args.count("max-tokens", 1, limits.output_tokens);
    const conversation: Conversation = {
      target: findTarget(args.text("url"), settings),
      model: args.required("name"),
      max_tokens,
      messages: system === undefined ? [] : [{ role: "system", content: system }],
    };
    const message = args.text("message");
    return message === undefined ? talk(conversation) : askOnce(conversation, message);
  },
};

interface Conversation {
  readonly target: GatewayTarget;
  readonly model: string;
  readonly max_tokens: number | undefined;
  readonly messages: ChatMessage[];
}

/** Asks and answers until the input ends. An answer that fails is reported; the conversation goes on without it. */
async function talk(conversation: Conversation): Promise<number> {
  const isTerminal = process.stdin.isTTY === true;
  const input = createInterface({ input: process.stdin, ...(isTerminal ? { output: process.stdout } : {}) });
  let current: AbortController | null = null;
  // On a terminal the line editor gets Ctrl-C, not the process: it ends the answer, or else the conversation.
  input.on("SIGINT", () => (current === null ? input.close() : current.abort()));
  let status: number = exitStatus.ok;
  if (isTerminal) input.prompt();
  for await (const line of input) {
    if (line.trim() !== "") {
      current = new AbortController();
      try {
        await answer(conversation, line, current);
      } catch (error) {
        if (!(error instanceof CommandFailure)) throw error;
        printNote(`error: ${error.message}${error.advice === undefined ? "" : `\n${error.advice}`}`);
        if (!isTerminal) status = exitStatus.failed;
      }
      current = null;
    }
    if (isTerminal) input.prompt();
  }
  if (isTerminal) printLine();
  return status;
}

/** One question, one answer; Ctrl-C ends it. */
async function askOnce(conversation: Conversation, message: string): Promise<number> {
  const controller = new AbortController();
  process.once("SIGINT", () => controller.abort());
  return (await answer(conversation, message, controller)) ? exitStatus.ok : exitStatus.interrupted;
}

/** Streams one answer and remembers both sides; false when the controller ended it, which also cancels it there. */
async function answer(
  conversation: Conversation,
  content: string,
  controller: AbortController,
): Promise<boolean> {
  const { target, model, max_tokens, messages } = conversation;
  const status = createStatusLine(process.stderr);
  const asked: ChatMessage = { role: "user", content };
  let text = "";
  try {
    const options = {
      model,
      messages: [...messages, asked],
      ...(max_tokens === undefined ? {} : { max_tokens }),
    };
    for await (const event of streamChat(target, options, controller.signal)) {
      if (event.type === "waiting") status.show(waitingText(model, event.state, event.eta_ms));
      if (event.type !== "text") continue;
      status.clear();
      process.stdout.write(event.text);
      text += event.text;
    }
  } catch (error) {
    if (!controller.signal.aborted) throw error;
  } finally {
    status.clear();
    if (text !== "" && !text.endsWith("\n")) printLine();
  }
  // A cut answer stays in the conversation: the model must know what the reader has seen.
  messages.push(asked, { role: "assistant", content: text });
  return !controller.signal.aborted;
}

function waitingText(model: string, state: string, eta_ms: number | null): string {
  return `${model}: ${state}${eta_ms === null ? "" : `, about ${(eta_ms / 1000).toFixed(1)} s`}`;
}
