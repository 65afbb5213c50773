/** A client's streams, with what must hold of every one: each token once, in order, under ids that follow each other. */
import { parseEventId } from "../../schema/ids.ts";

export interface ReadAnswer {
  readonly text: string;
  readonly finish_reason: string | null;
  readonly usage: unknown;
  /** Workers that told tokens, in their order. */
  readonly workers: readonly string[];
  /** Longest time between two events with tokens. */
  readonly longest_gap_ms: number;
  /** What a client must never see. */
  readonly problems: readonly string[];
}

/** Between two events with tokens. */
export interface Gap {
  readonly ms: number;
  readonly ended_ms: number;
  /** The workers that told the event before and the one after. */
  readonly from: string;
  readonly to: string;
}

/** An open stream of the chat API. */
export class OpenStream {
  readonly generation_id: string;
  readonly #events: AsyncGenerator<StreamEvent>;
  readonly #problems: string[] = [];
  readonly #workers: string[] = [];
  readonly #gaps: Gap[] = [];
  readonly #leaving: AbortController;
  /** Length of the text with each token that ended an event. */
  readonly #lengths = new Map<number, number>();
  #text = "";
  #finish_reason: string | null = null;
  #usage: unknown = null;
  #last_index = -1;
  #last_ms: number | null = null;
  #isDone = false;
  #hasLeft = false;

  private constructor(generation_id: string, events: AsyncGenerator<StreamEvent>, leaving: AbortController) {
    this.generation_id = generation_id;
    this.#events = events;
    this.#leaving = leaving;
  }

  static async open(url: string, body: object, init: RequestInit = {}): Promise<OpenStream> {
    const leaving = new AbortController();
    const response = await fetch(`${url}/v1/chat/completions`, {
      method: "POST",
      signal: leaving.signal,
      ...init,
      headers: { "content-type": "application/json", ...init.headers },
      body: JSON.stringify({ stream: true, stream_options: { include_usage: true }, ...body }),
    });
    if (!response.ok || response.body === null)
      throw new Error(`${response.status} ${await response.text()}`);
    const events = readEvents(response.body);
    const first = await events.next();
    if (first.done === true) throw new Error("a stream without an event");
    const id = parseEventId(first.value.id ?? "");
    if (id === null) throw new Error(`the first event is ${JSON.stringify(first.value)}`);
    const stream = new OpenStream(id.generation_id, events, leaving);
    stream.#take(first.value);
    return stream;
  }

  /** Index of the last token that was told. */
  get lastIndex(): number {
    return this.#last_index;
  }

  /** Of the worker that told the last token. */
  get worker_id(): string {
    return this.#workers.at(-1) ?? "";
  }

  /** Text up to a token; null where no event ended with it. */
  textUpTo(index: number): string | null {
    const length = this.#lengths.get(index);
    return length === undefined ? null : this.#text.slice(0, length);
  }

  get problems(): readonly string[] {
    return this.#problems;
  }

  /** Those that ended since then. */
  gapsSince(since_ms: number): Gap[] {
    return this.#gaps.filter(({ ended_ms }) => ended_ms >= since_ms);
  }

  /** The client leaves. */
  leave(): void {
    this.#hasLeft = true;
    this.#leaving.abort();
  }

  get isDone(): boolean {
    return this.#isDone;
  }

  /** Reads until so many tokens were told, or the end. */
  async until(tokens: number): Promise<void> {
    while (this.#last_index + 1 < tokens && (await this.next()));
  }

  /** One event; false at the end. */
  async next(): Promise<boolean> {
    const { value, done } = await this.#events.next().catch((error: unknown) => {
      if (this.#hasLeft) return { value: undefined, done: true as const };
      throw error;
    });
    if (done === true || value === undefined) {
      if (!this.#isDone && !this.#hasLeft) this.#problems.push("the stream ended without [DONE]");
      return false;
    }
    this.#take(value);
    return true;
  }

  async read(): Promise<ReadAnswer> {
    while (await this.next());
    return {
      ...{ text: this.#text, finish_reason: this.#finish_reason, usage: this.#usage },
      ...{ workers: this.#workers, problems: this.#problems },
      longest_gap_ms: Math.max(0, ...this.#gaps.map(({ ms }) => ms)),
    };
  }

  #take({ id, data, at_ms }: StreamEvent): void {
    if (data === "[DONE]") {
      this.#isDone = true;
      return;
    }
    const body = JSON.parse(data);
    if (body.error !== undefined) this.#problems.push(`${body.error.code}: ${body.error.message}`);
    const place = id === null ? null : parseEventId(id);
    if (place !== null) this.#place(place.worker_id, place.last_token_index, at_ms);
    if (body.usage) this.#usage = body.usage;
    for (const choice of body.choices ?? []) {
      this.#text += choice.delta?.content ?? "";
      this.#finish_reason = choice.finish_reason ?? this.#finish_reason;
    }
    this.#lengths.set(this.#last_index, this.#text.length);
  }

  #place(worker_id: string, last_index: number, at_ms: number): void {
    if (last_index < this.#last_index) {
      this.#problems.push(`token ${last_index} was told after token ${this.#last_index}`);
    }
    if (last_index === this.#last_index) return;
    const from = this.#workers.at(-1) ?? worker_id;
    if (this.#last_ms !== null) {
      this.#gaps.push({ ms: at_ms - this.#last_ms, ended_ms: at_ms, from, to: worker_id });
    }
    if (this.#workers.at(-1) !== worker_id) this.#workers.push(worker_id);
    this.#last_ms = at_ms;
    this.#last_index = last_index;
  }
}

export function openStream(url: string, body: object, init: RequestInit = {}): Promise<OpenStream> {
  return OpenStream.open(url, body, init);
}

interface StreamEvent {
  readonly id: string | null;
  readonly data: string;
  readonly at_ms: number;
}

async function* readEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<StreamEvent> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of body) {
    const at_ms = performance.now();
    text += decoder.decode(chunk, { stream: true });
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const lines = text.slice(0, end).split("\n");
      text = text.slice(end + 2);
      const field = (name: string) =>
        lines
          .find((line) => line.startsWith(name))
          ?.slice(name.length)
          .trim();
      const data = field("data:");
      if (data !== undefined) yield { id: field("id:") ?? null, data, at_ms };
    }
  }
}
