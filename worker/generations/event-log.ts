/**
 * The events of one generation, kept for several readers that each go at their own pace and begin at any token. A bound
 * on its bytes lets the oldest tokens go; a reader that still wanted them is told so.
 */
import type { GenerationEvent, TokensEvent } from "../../schema/cluster/generate.ts";
import { isLastEvent } from "../../schema/cluster/generate.ts";
import { SllmError } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import type { EventReader } from "../ports.ts";

/** Tokens of one event: keeps the frames of a reader that catches up small. */
const tokensPerEvent = 256;
/** What a token costs beside its text while it is kept. */
const tokenBytes = 16;
/** What a log-probability costs, its token's bytes as a list of numbers included. */
const logprobBytes = 64;

export interface EventLogOptions {
  /** False: what a reader has taken is forgotten. For streams that nobody reads again. */
  readonly isKept: boolean;
  /** Called whenever the number of readers changes. */
  readonly onReaders: () => void;
}

export class EventLog {
  readonly #options: EventLogOptions;
  #events: GenerationEvent[] = [];
  /** How many events were let go before the first of `#events`. */
  #gone = 0;
  #bytes = 0;
  /** Index of the token that comes next. */
  #next_index = 0;
  #hasEnded = false;
  readonly #readers = new Set<LogReader>();

  /** `first_index` is that of the first token to come. */
  constructor(first_index: number, options: EventLogOptions) {
    this.#next_index = first_index;
    this.#options = options;
  }

  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  get readers(): number {
    return this.#readers.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get next_index(): number {
    return this.#next_index;
  }

  /** First token that is still here; that of the next one when none is. */
  get first_index(): number {
    return this.told()[0]?.first_index ?? this.#next_index;
  }

  /** The token events from the one that has this token on. */
  told(from = 0): TokensEvent[] {
    return this.#events.filter(isTokens).filter((event) => event.first_index + event.tokens.length > from);
  }

  /** The last event, once there is one. */
  get end(): GenerationEvent | null {
    return this.#hasEnded ? (this.#events.at(-1) ?? null) : null;
  }

  /** Takes the next event; after the last one none. */
  push(event: GenerationEvent): void {
    if (this.#hasEnded) return;
    this.#hasEnded = isLastEvent(event);
    if (event.type === "tokens") this.#next_index = event.first_index + event.tokens.length;
    this.#bytes += eventBytes(event);
    this.#events.push(event);
    while (this.#bytes > limits.generation_log_bytes && this.#events.length > 1) this.#forgetOldest();
    for (const reader of this.#readers) reader.wake();
  }

  /**
   * Begins at a token. Throws `generation_lost` where that is in the middle of an event that cannot be split, beyond the
   * end, or no longer here.
   */
  readFrom(from: number): EventReader<GenerationEvent> {
    if (from > this.#next_index) {
      throw lost(`Token ${from} is wanted, and ${this.#next_index} are known here.`);
    }
    if (from < this.first_index) throw lost(`Token ${from} is no longer kept.`);
    const place = this.#events.findIndex(
      (event) => isTokens(event) && event.first_index + event.tokens.length > from,
    );
    const first = this.#events[place];
    if (first === undefined || !isTokens(first)) {
      return this.#open(this.#gone + this.#events.findLastIndex(isTokens) + 1, null);
    }
    if (first.first_index === from) return this.#open(this.#gone + place, null);
    if (first.delta !== undefined) throw lost(`Token ${from} is in the middle of an event.`);
    const rest = { ...first, first_index: from, tokens: first.tokens.slice(from - first.first_index) };
    return this.#open(this.#gone + place + 1, rest);
  }

  #open(position: number, before: GenerationEvent | null): LogReader {
    const reader = new LogReader(
      position,
      before,
      (at) => this.#take(at),
      () => {
        this.#readers.delete(reader);
        this.#options.onReaders();
      },
    );
    this.#readers.add(reader);
    this.#options.onReaders();
    return reader;
  }

  /** What a reader at a position gets, and where it stands then; null: nothing yet. */
  #take(position: number): Taken | null {
    if (position < this.#gone) return { event: tooSlow(), position: Number.POSITIVE_INFINITY };
    const at = position - this.#gone;
    const event = this.#events[at];
    if (event === undefined) {
      return this.#hasEnded ? { event: null, position } : null;
    }
    const joined = this.#join(event, at);
    if (!this.#options.isKept) {
      for (let i = 0; i <= at + joined.count - 1; i++) this.#forgetOldest();
    }
    return { event: joined.event, position: position + joined.count };
  }

  /** Plain tokens that follow each other make one event; what adds to a message has an order of its own. */
  #join(first: GenerationEvent, at: number): { event: GenerationEvent; count: number } {
    if (!isTokens(first) || first.delta !== undefined) return { event: first, count: 1 };
    let [tokens, count] = [first.tokens, 1];
    for (; tokens.length < tokensPerEvent; count++) {
      const next = this.#events[at + count];
      if (next === undefined || !isTokens(next) || next.delta !== undefined) break;
      tokens = [...tokens, ...next.tokens];
    }
    return { event: { ...first, tokens }, count };
  }

  #forgetOldest(): void {
    const oldest = this.#events.shift();
    if (oldest === undefined) return;
    this.#gone += 1;
    this.#bytes -= eventBytes(oldest);
  }
}

interface Taken {
  readonly event: GenerationEvent | null;
  readonly position: number;
}

class LogReader implements EventReader<GenerationEvent> {
  #position: number;
  #before: GenerationEvent | null;
  readonly #take: (position: number) => Taken | null;
  readonly #onClose: () => void;
  #waiting: ((event: GenerationEvent | null) => void) | null = null;
  #isClosed = false;

  constructor(
    position: number,
    before: GenerationEvent | null,
    take: (position: number) => Taken | null,
    onClose: () => void,
  ) {
    this.#position = position;
    this.#before = before;
    this.#take = take;
    this.#onClose = onClose;
  }

  next(): Promise<GenerationEvent | null> {
    const before = this.#before;
    this.#before = null;
    if (before !== null) return Promise.resolve(before);
    if (this.#isClosed || this.#position === Number.POSITIVE_INFINITY) return Promise.resolve(null);
    const taken = this.#take(this.#position);
    if (taken === null) {
      return new Promise((resolve) => {
        this.#waiting = resolve;
      });
    }
    this.#position = taken.position;
    return Promise.resolve(taken.event);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#waiting?.(null);
    this.#waiting = null;
    this.#onClose();
  }

  /** There is more. */
  wake(): void {
    const waiting = this.#waiting;
    if (waiting === null) return;
    this.#waiting = null;
    void this.next().then(waiting);
  }
}

function isTokens(event: GenerationEvent): event is TokensEvent {
  return event.type === "tokens";
}

function lost(message: string): SllmError {
  return new SllmError("generation_lost", message);
}

function tooSlow(): GenerationEvent {
  const message = `The reader of the stream is more than ${limits.generation_log_bytes} bytes behind.`;
  return { type: "error", error: { code: "overloaded", message } };
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
