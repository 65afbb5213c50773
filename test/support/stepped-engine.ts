/** An engine that steps by hand and says the same tokens wherever it runs: what moving needs of an instance. */
import type { GenerationEvent } from "../../schema/cluster/generate.ts";
import type {
  GenerateSettings,
  HeldListener,
  KvMove,
  KvOutcome,
} from "../../worker/instances/request-table.ts";
import type { ArrivalTarget } from "../../worker/moves/arrivals.ts";

export const generation_id = "0123456789abcdef0123456789abcdef";
export const instance_id = "i-0123456789abcdef";
export const checkpoint = "c".repeat(64);

export const settings: GenerateSettings = {
  prompt: { kind: "text", text: "abc" },
  sampling: { temperature: 0, top_k: 0, top_p: 1, min_p: 0, seed: "1" },
  stop: [],
  max_tokens: null,
  ignore_eos: false,
};

/** The output token at an index. */
export function tokenAt(index: number): number {
  return (index * 7 + 3) % 101;
}

/** Of every generation's prompt. */
const promptTokens = 3;

interface Running {
  readonly onEvent: (event: GenerationEvent) => void;
  onHeld: HeldListener | null;
  output: number[];
  /** Output tokens up to which all is computed. */
  computed: number;
  held: boolean;
  awaitsKv: boolean;
  /** Output tokens that `onHeld` has heard of. */
  told: number;
}

export class SteppedEngine implements ArrivalTarget {
  readonly state = "ready";
  readonly request: ArrivalTarget["request"];
  tokensPerStep = 1;
  /** False: held requests do not get on. */
  computes = true;
  /** Tokens of every prompt that it says to have found computed. */
  cachedTokens = 0;
  /** Null: its KV cache cannot be moved. */
  kv: ArrivalTarget["kv"] = null;
  /** Tokens whose rows came from elsewhere. */
  loaded = 0;
  readonly #most: number;
  readonly #running = new Map<number, Running>();
  #last = 0;

  /** Every answer has so many tokens. */
  constructor(most: number) {
    this.#most = most;
    this.request = {
      protocol_version: 1,
      ...{ instance_id, model_id: "m", checkpoint, device_id: "cpu", context_tokens: 1024, slots: 4 },
    };
  }

  get unfinished(): number {
    return this.#running.size;
  }

  submit(wanted: unknown, onEvent: Running["onEvent"]): number {
    const { resume, held = false, awaits_kv: awaitsKv = false } = wanted as GenerateSettings;
    const output = [...(resume?.output ?? [])];
    this.#running.set(++this.#last, {
      onEvent,
      onHeld: null,
      output,
      computed: -1,
      held,
      awaitsKv,
      told: -1,
    });
    return this.#last;
  }

  followHeld(number: number, onHeld: HeldListener): void {
    const request = this.#running.get(number);
    if (request) request.onHeld = onHeld;
  }

  hold(number: number): void {
    const request = this.#running.get(number);
    if (!request) return;
    request.held = true;
    queueMicrotask(() => request.onHeld?.(request.output.length, 0));
  }

  extend(number: number, tokens: readonly number[], go: boolean): void {
    const request = this.#running.get(number);
    if (!request) return;
    request.output.push(...tokens);
    if (go) request.held = false;
    this.#endIfComplete(number, request);
  }

  async moveKv(number: number, what: KvMove): Promise<KvOutcome | null> {
    await Promise.resolve();
    const request = this.#running.get(number);
    if (!request) return null;
    const { to } = what;
    if (what.op === "save_kv") return { to, digest: "00000000000000aa" };
    const error = { code: "model_loading", message: "it waits for no rows" } as const;
    if (!request.awaitsKv) return { to, error };
    this.loaded += to - what.from;
    if (to === what.all) [request.awaitsKv, request.computed] = [false, Math.max(0, to - promptTokens)];
    return { to };
  }

  cancel(number: number): void {
    this.#end(number, { type: "error", error: { code: "cancelled", message: "cancelled" } });
  }

  /** The engine process is gone. */
  fail(): void {
    for (const number of [...this.#running.keys()])
      this.#end(number, { type: "error", error: { code: "engine_failed", message: "the engine ended" } });
  }

  /** Every request gets on by some tokens: those that are held compute, the others draw. */
  step(): void {
    for (const [number, request] of [...this.#running]) {
      if (request.held) this.#compute(request);
      else
        for (let i = 0; i < this.tokensPerStep && this.#running.has(number); i++) this.#draw(number, request);
    }
  }

  #compute(request: Running): void {
    if (!this.computes || request.awaitsKv) return;
    request.computed = Math.min(Math.max(0, request.computed) + this.tokensPerStep, request.output.length);
    if (request.told === request.computed) return;
    request.told = request.computed;
    request.onHeld?.(request.computed, this.cachedTokens);
  }

  #draw(number: number, request: Running): void {
    if (this.#endIfComplete(number, request)) return;
    const first_index = request.output.length;
    const token = tokenAt(first_index);
    request.output.push(token);
    request.onEvent({ type: "tokens", choice: 0, first_index, tokens: [{ token, text: `${token} ` }] });
    this.#endIfComplete(number, request);
  }

  #endIfComplete(number: number, request: Running): boolean {
    if (request.held || request.output.length < this.#most) return false;
    this.#end(number, {
      type: "done",
      finish_reason: "length",
      text: "",
      prompt_tokens: 3,
      completion_tokens: request.output.length,
      timings: { queue_ms: 0, prefill_ms: 0, decode_ms: 0 },
    });
    return true;
  }

  #end(number: number, event: GenerationEvent): void {
    const request = this.#running.get(number);
    this.#running.delete(number);
    request?.onEvent(event);
  }
}
