/** The unfinished requests of one engine: numbers on the private channel, and whom their events concern. */
import type { EngineCommand, EngineMessage } from "../../schema/cluster/engine.ts";
import type { GenerationEvent } from "../../schema/cluster/generate.ts";
import type { WireError } from "../../schema/error.ts";

/** What a request asks of the engine, its adapter aside. */
export type GenerateSettings = Omit<Extract<EngineCommand, { op: "generate" }>, "op" | "request" | "adapter">;

/** What a request for vectors asks of it. */
export type EmbedSettings = Omit<Extract<EngineCommand, { op: "embed" }>, "op" | "request">;

/** Messages of the engine that belong to a request. */
export type RequestMessage = Extract<
  EngineMessage,
  { type: "started" | "held" | "kv" | "tokens" | "vectors" | "done" | "error" }
>;

export type GenerationListener = (event: GenerationEvent) => void;

/**
 * Told how many output tokens of a held request are computed; of one that ran here, how many it has. And how many tokens of
 * prompt and output were found computed.
 */
export type HeldListener = (completion_tokens: number, cached_tokens: number) => void;

/** Of rows of the KV cache that were saved or loaded: the file's digest, or why nothing came of it. */
export type KvOutcome = Omit<Extract<EngineMessage, { type: "kv" }>, "type" | "request">;

/** Of an engine whose KV cache can be moved: what its rows take, and who takes them. */
export type EngineKv = NonNullable<Extract<EngineMessage, { type: "ready" }>["kv"]>;

/** Rows to save or to load. */
export type KvMove = WithoutRequest<Extract<EngineCommand, { op: "save_kv" | "load_kv" }>>;
type WithoutRequest<T> = T extends unknown ? Omit<T, "request"> : never;

interface RunningRequest {
  readonly onEvent: GenerationListener;
  onHeld: HeldListener | null;
  /** Who waits for its rows, one at a time. */
  onKv: ((outcome: KvOutcome) => void) | null;
  onEnd?: () => void;
  /** False while it waits for a slot. */
  started: boolean;
}

export class RequestTable {
  readonly #running = new Map<number, RunningRequest>();
  #last = 0;

  /** Requests in slots. */
  get active(): number {
    let active = 0;
    for (const request of this.#running.values()) if (request.started) active++;
    return active;
  }

  /** Requests in slots or waiting. */
  get size(): number {
    return this.#running.size;
  }

  /** Opens a request; its number was never used before. */
  open(onEvent: GenerationListener): number {
    this.#running.set(++this.#last, { onEvent, onHeld: null, onKv: null, started: false });
    return this.#last;
  }

  /** Who hears that a request is held; nobody once it has ended. */
  followHeld(number: number, onHeld: HeldListener): void {
    const request = this.#running.get(number);
    if (request) request.onHeld = onHeld;
  }

  /** What becomes of the next rows of a request; null when it has ended, or ends before. */
  nextKv(number: number): Promise<KvOutcome | null> {
    const request = this.#running.get(number);
    if (!request) return Promise.resolve(null);
    request.onKv?.(replaced);
    return new Promise((resolve) => {
      request.onKv = resolve;
      request.onEnd = () => resolve(null);
    });
  }

  get numbers(): readonly number[] {
    return [...this.#running.keys()];
  }

  has(number: number): boolean {
    return this.#running.has(number);
  }

  /** Passes a message on; one for a request that has ended is dropped. */
  deliver(message: RequestMessage): void {
    const { request: number, ...event } = message;
    const request = this.#running.get(number);
    if (!request) return;
    if (event.type === "held") {
      request.started = true;
      request.onHeld?.(event.completion_tokens, event.cached_tokens ?? 0);
      return;
    }
    if (event.type === "kv") {
      const { type: _, ...outcome } = event;
      request.onKv?.(outcome);
      request.onKv = null;
      return;
    }
    if (event.type === "started") request.started = true;
    if (event.type === "done" || event.type === "error") {
      this.#running.delete(number);
      request.onEnd?.();
    }
    request.onEvent(event.type === "tokens" ? { ...event, choice: 0 } : event);
  }

  /** Ends all requests with an `error` event. */
  endAll(error: WireError): void {
    const running = [...this.#running.values()];
    this.#running.clear();
    for (const request of running) {
      request.onEvent({ type: "error", error });
      request.onEnd?.();
    }
  }
}

const replaced: KvOutcome = {
  to: 0,
  error: { code: "state_conflict", message: "Other rows of the request are wanted meanwhile." },
};
