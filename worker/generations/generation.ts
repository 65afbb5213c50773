/**
 * One running generation: takes the engine's events and keeps them for a reader that may be slower. A reader that
 * leaves only starts the grace time; an explicit cancel or its end ends the generation.
 */
import type { GenerationEvent } from "../../schema/cluster/generate.ts";
import type { WireError } from "../../schema/error.ts";
import type { GenerationId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { Clock, EventReader } from "../ports.ts";

/** Tokens of one event: keeps the frames of a reader that catches up small. */
const tokensPerEvent = 256;
/** What a token costs beside its text while it waits. */
const tokenBytes = 16;
/** What a log-probability costs, its token's bytes as a list of numbers included. */
const logprobBytes = 64;

export interface GenerationOptions {
  readonly generation_id: GenerationId;
  readonly epoch: number;
  readonly clock: Clock;
  /** Asks the engine to end it. */
  readonly onCancel: () => void;
  /** Called once, with the last event. */
  readonly onEnd: () => void;
}

export class Generation implements EventReader<GenerationEvent> {
  readonly generation_id: GenerationId;
  readonly epoch: number;
  readonly #options: GenerationOptions;
  readonly #events: GenerationEvent[] = [];
  readonly #grace = new AbortController();
  #bufferedBytes = 0;
  #waiting: ((event: GenerationEvent | null) => void) | null = null;
  #ended = false;
  #readerLeft = false;

  constructor(options: GenerationOptions) {
    this.generation_id = options.generation_id;
    this.epoch = options.epoch;
    this.#options = options;
  }

  /** True when its last event has come. */
  get hasEnded(): boolean {
    return this.#ended;
  }

  /** Takes an event of the engine; those after the last one are dropped. */
  push(event: GenerationEvent): void {
    if (this.#ended) return;
    const isLast = event.type === "done" || event.type === "error";
    if (isLast) this.#ended = true;
    if (!this.#readerLeft) this.#keep(event);
    if (isLast) {
      this.#grace.abort();
      this.#options.onEnd();
    }
  }

  /** Ends it with an error at once; the engine is asked to stop. */
  end(error: WireError): void {
    if (this.#ended) return;
    this.#options.onCancel();
    this.push({ type: "error", error });
  }

  /** Asks the engine to end it; its `error` event with code `cancelled` follows. False when it had ended. */
  cancel(): boolean {
    if (this.#ended) return false;
    this.#options.onCancel();
    return true;
  }

  next(): Promise<GenerationEvent | null> {
    const event = this.#events.shift();
    if (event) {
      this.#bufferedBytes -= eventBytes(event);
      return Promise.resolve(event);
    }
    if (this.#ended || this.#readerLeft) return Promise.resolve(null);
    return new Promise((resolve) => {
      this.#waiting = resolve;
    });
  }

  /** The reader leaves: after the grace time the generation is cancelled unless it has ended. */
  close(): void {
    if (this.#readerLeft) return;
    this.#readerLeft = true;
    this.#events.length = 0;
    this.#waiting?.(null);
    this.#waiting = null;
    if (!this.#ended) void this.#cancelAfterGrace();
  }

  async #cancelAfterGrace(): Promise<void> {
    await this.#options.clock.sleep(limits.orphan_grace_ms, this.#grace.signal);
    this.cancel();
  }

  #keep(event: GenerationEvent): void {
    const waiting = this.#waiting;
    if (waiting) {
      this.#waiting = null;
      waiting(event);
      return;
    }
    const last = this.#events.at(-1);
    this.#bufferedBytes += eventBytes(event);
    if (event.type === "tokens" && last?.type === "tokens" && mayJoin(last, event)) {
      last.tokens.push(...event.tokens);
    } else this.#events.push(event);
    if (this.#bufferedBytes > limits.stream_buffer_bytes && !this.#ended) {
      const message = `The reader of the stream is more than ${limits.stream_buffer_bytes} bytes behind.`;
      this.end({ code: "overloaded", message });
    }
  }
}

type TokensEvent = Extract<GenerationEvent, { type: "tokens" }>;

/** What tokens add to a message has an order of its own: such events stay apart. */
function mayJoin(last: TokensEvent, next: TokensEvent): boolean {
  return last.tokens.length < tokensPerEvent && last.delta === undefined && next.delta === undefined;
}

/** Vectors are bounded by their request: a reader that is slower only takes them later. */
function eventBytes(event: GenerationEvent): number {
  if (event.type !== "tokens") return 0;
  const bytes = event.tokens.reduce(
    (sum, token) => sum + token.text.length + tokenBytes + (token.logprobs?.length ?? 0) * logprobBytes,
    0,
  );
  // A delta says what its tokens' text says, and little more.
  return event.delta === undefined ? bytes : 2 * bytes;
}
