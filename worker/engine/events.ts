/** Events of the native engine as messages of the engine protocol: the tokens of one drain become one message. Pure. */
import { Buffer } from "node:buffer";
import type { NativeEvent } from "../../native/bun-ffi-helpers/native.ts";
import { failureName } from "../../native/bun-ffi-helpers/native.ts";
import { eventKind, finishKind, statuses } from "../../native/bun-ffi-helpers/sllm-structs.ts";
import type { EngineMessage } from "../../schema/cluster/engine.ts";
import type { OutputToken } from "../../schema/cluster/generate.ts";
import { requestErrorCode } from "../status-codes.ts";

type TokensMessage = Extract<EngineMessage, { type: "tokens" }>;

/** Messages in an order that keeps every request's own; at most one `tokens` message per request. */
export function toMessages(events: readonly NativeEvent[]): EngineMessage[] {
  const messages: EngineMessage[] = [];
  const open = new Map<number, TokensMessage>();
  for (const event of events) {
    switch (event.kind) {
      case eventKind.SLLM_EVENT_STARTED:
        messages.push(startedMessage(event));
        break;
      case eventKind.SLLM_EVENT_HELD:
        // Tokens that come after it belong to what follows: they must not be told before it.
        open.delete(event.request);
        messages.push(heldMessage(event));
        break;
      case eventKind.SLLM_EVENT_KV:
        messages.push(kvMessage(event));
        break;
      case eventKind.SLLM_EVENT_TOKEN:
        addToken(messages, open, event);
        break;
      case eventKind.SLLM_EVENT_VECTOR: {
        const vectors = [Buffer.from(event.vector).toString("base64")];
        messages.push({ type: "vectors", request: event.request, first_index: 0, vectors });
        break;
      }
      case eventKind.SLLM_EVENT_DONE:
        open.delete(event.request);
        messages.push(doneMessage(event));
        break;
      case eventKind.SLLM_EVENT_ERROR:
        open.delete(event.request);
        messages.push({
          type: "error",
          request: event.request,
          error: { code: requestErrorCode(failureName(event.status)), message: event.text },
        });
        break;
    }
  }
  return messages;
}

/** True when an event says that the engine itself has failed and must be destroyed. */
export function isFatal(event: NativeEvent): boolean {
  return event.kind === eventKind.SLLM_EVENT_ERROR && event.status === statuses.SLLM_E_ENGINE;
}

function addToken(messages: EngineMessage[], open: Map<number, TokensMessage>, event: NativeEvent): void {
  const token = toToken(event);
  const before = open.get(event.request);
  if (before) {
    before.tokens.push(token);
    return;
  }
  const message: TokensMessage = {
    type: "tokens",
    request: event.request,
    first_index: event.index,
    tokens: [token],
  };
  open.set(event.request, message);
  messages.push(message);
}

/** JSON has no minus infinity: what is impossible gets a number that no possible token has. */
const impossible = -9999;

function toToken({ token, text, logprobs }: NativeEvent): OutputToken {
  if (logprobs.length === 0) return { token, text };
  const told = logprobs.map(({ token: id, logprob, bytes }) => ({
    token: id,
    logprob: Math.max(logprob, impossible),
    bytes: [...bytes],
  }));
  return { token, text, logprobs: told };
}

function startedMessage({ request, prompt_tokens, cached_tokens, text }: NativeEvent): EngineMessage {
  return {
    type: "started",
    request,
    prompt_tokens,
    ...(cached_tokens > 0 ? { cached_tokens } : {}),
    ...(text === "" ? {} : { resumed_text: text }),
  };
}

function heldMessage({ request, index, cached_tokens }: NativeEvent): EngineMessage {
  const completion_tokens = index;
  return { type: "held", request, completion_tokens, ...(cached_tokens > 0 ? { cached_tokens } : {}) };
}

function kvMessage({ request, index: to, status, text }: NativeEvent): EngineMessage {
  if (status !== statuses.SLLM_OK) {
    const error = { code: requestErrorCode(failureName(status)), message: text };
    return { type: "kv", request, to, error };
  }
  return { type: "kv", request, to, ...(text === "" ? {} : { digest: text }) };
}

function doneMessage(event: NativeEvent): EngineMessage {
  return {
    type: "done",
    request: event.request,
    finish_reason: event.status === finishKind.SLLM_FINISH_LENGTH ? "length" : "stop",
    text: event.text,
    prompt_tokens: event.prompt_tokens,
    ...(event.cached_tokens > 0 ? { cached_tokens: event.cached_tokens } : {}),
    completion_tokens: event.index,
    timings: { queue_ms: event.queue_ms, prefill_ms: event.prefill_ms, decode_ms: event.decode_ms },
  };
}
