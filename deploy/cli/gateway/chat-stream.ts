/** One streaming chat request over public HTTP: texts, waiting comments and the end, as an async iterable. */
import { createParser } from "eventsource-parser";
import { z } from "zod";
import { chatChunk } from "../../../schema/api/answers.ts";
import { errorBody } from "../../../schema/error.ts";
import { parseEventId } from "../../../schema/ids.ts";
import type { MessageRole } from "../../../schema/vocab.ts";
import { CommandFailure } from "../failure.ts";
import { authorization, fetchGateway, type GatewayTarget, refusal } from "./gateway-client.ts";

export interface ChatMessage {
  readonly role: MessageRole;
  readonly content: string;
}

export interface ChatOptions {
  readonly model: string;
  readonly messages: readonly ChatMessage[];
  readonly max_tokens?: number;
  readonly temperature?: number;
}

export type ChatEvent =
  /** What the request waits for, while it waits. */
  | { readonly type: "waiting"; readonly state: string; readonly eta_ms: number | null }
  | { readonly type: "text"; readonly text: string }
  | {
      readonly type: "end";
      readonly finish_reason: string | null;
      readonly completion_tokens: number | null;
      readonly generation_id: string | null;
    };

const waitingComment = z.object({ state: z.string(), eta_ms: z.number().nullish() });

/**
 * Sends the request and yields its events; `end` comes exactly once and last. Aborting the signal closes the
 * connection, which cancels the generation, and throws the signal's AbortError. Failures before and inside the
 * stream are thrown as CommandFailure; so is a stream that breaks off without its end.
 */
export async function* streamChat(
  target: GatewayTarget,
  options: ChatOptions,
  signal: AbortSignal,
): AsyncGenerator<ChatEvent> {
  const response = await fetchGateway(target, "/v1/chat/completions", {
    method: "POST",
    headers: authorization(target.api_key),
    body: JSON.stringify({ ...options, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  if (!response.ok || response.body === null) throw await refusal(response);
  const reader = new ChatReader();
  const decoder = new TextDecoder();
  for await (const bytes of response.body) {
    yield* reader.read(decoder.decode(bytes, { stream: true }));
    if (reader.isDone) return;
  }
  throw new CommandFailure("the answer broke off before its end", {
    advice: "The gateway or the connection to it went away; send the message again.",
  });
}

/** Turns the text of the event stream into events. Pure but for its own state. */
export class ChatReader {
  readonly #parser;
  #events: ChatEvent[] = [];
  #end = {
    type: "end" as const,
    finish_reason: null as string | null,
    completion_tokens: null as number | null,
    generation_id: null as string | null,
  };
  #isDone = false;

  constructor() {
    this.#parser = createParser({
      onEvent: (event) => this.#take(event.data, event.id),
      onComment: (comment) => this.#takeComment(comment),
    });
  }

  /** True after `end` was returned: nothing more belongs to the answer. */
  get isDone(): boolean {
    return this.#isDone;
  }

  read(text: string): ChatEvent[] {
    this.#events = [];
    this.#parser.feed(text);
    return this.#events;
  }

  #take(data: string, id: string | undefined): void {
    if (this.#isDone) return;
    const position = id === undefined ? null : parseEventId(id);
    if (position !== null) this.#end.generation_id = position.generation_id;
    if (data === "[DONE]") {
      this.#isDone = true;
      this.#events.push(this.#end);
      return;
    }
    const value: unknown = JSON.parse(data);
    const failure = errorBody.safeParse(value);
    if (failure.success) {
      const { message, code, hint } = failure.data.error;
      throw new CommandFailure(`${message} (${code})`, hint === undefined ? {} : { advice: hint });
    }
    const chunk = chatChunk.parse(value);
    if (chunk.usage) this.#end.completion_tokens = chunk.usage.completion_tokens;
    for (const choice of chunk.choices) {
      if (choice.delta.content) this.#events.push({ type: "text", text: choice.delta.content });
      if (choice.finish_reason !== null) this.#end.finish_reason = choice.finish_reason;
    }
  }

  /** Comments are for people: one that is not ours is passed over. */
  #takeComment(comment: string): void {
    if (!comment.trimStart().startsWith("{")) return;
    const parsed = waitingComment.safeParse(parseOrNull(comment));
    if (!parsed.success) return;
    this.#events.push({ type: "waiting", state: parsed.data.state, eta_ms: parsed.data.eta_ms ?? null });
  }
}

function parseOrNull(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null; // a comment of somebody between, which only looks like one of ours
  }
}
