/** What a generation has told so far: kept to go on with it elsewhere, and to tell it again to others. */
import type { TokensEvent } from "../../schema/cluster/generate.ts";
import { SllmError } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";

/** What a token costs beside its text, and what a log-probability does. */
const tokenBytes = 16;
const logprobBytes = 64;

export class Told {
  readonly #output: number[] = [];
  #events: TokensEvent[] = [];
  #bytes = 0;

  /** Every token so far. */
  get output(): readonly number[] {
    return this.#output;
  }

  get next_index(): number {
    return this.#output.length;
  }

  /** The events as far as their bound lets them be kept: perhaps without the first ones. */
  get events(): readonly TokensEvent[] {
    return this.#events;
  }

  /** Takes the next event, whose first token is the next one. */
  add(event: TokensEvent): void {
    if (event.first_index !== this.#output.length) throw new Error("an event that is not the next one");
    for (const { token } of event.tokens) this.#output.push(token);
    this.#events.push(event);
    this.#bytes += bytesOf(event);
    while (this.#bytes > limits.generation_log_bytes && this.#events.length > 1) {
      const oldest = this.#events.shift();
      if (oldest !== undefined) this.#bytes -= bytesOf(oldest);
    }
  }

  /** Events from a token on. Throws `generation_lost` where it is in the middle of one, or no longer kept. */
  from(index: number): TokensEvent[] {
    const place = this.#events.findIndex((event) => event.first_index + event.tokens.length > index);
    const first = this.#events[place];
    if (first === undefined) return [];
    return [tailOf(first, index), ...this.#events.slice(place + 1)];
  }
}

/** Whether a tool call is among what was told. */
export function hasCalls(events: readonly TokensEvent[]): boolean {
  return events.some(({ delta }) => delta?.tool_calls !== undefined);
}

/** What is left of an event from a token on, at least one token. Throws `generation_lost` where it cannot be split. */
export function tailOf(event: TokensEvent, index: number): TokensEvent {
  const skip = index - event.first_index;
  if (skip === 0) return event;
  if (skip < 0) throw new SllmError("generation_lost", `Token ${index} is no longer kept.`);
  if (event.delta !== undefined) {
    throw new SllmError("generation_lost", `Token ${index} is in the middle of what was told at once.`);
  }
  return { ...event, first_index: index, tokens: event.tokens.slice(skip) };
}

function bytesOf({ tokens, delta }: TokensEvent): number {
  let bytes = 0;
  for (const { text, logprobs } of tokens) {
    bytes += text.length + tokenBytes + (logprobs === undefined ? 0 : logprobs.length * logprobBytes);
  }
  return delta === undefined ? bytes : 2 * bytes;
}
