/** One generation on its way here: what was told of it elsewhere, and how far the engine has computed it. */
import type { GenerateRequest, GenerationEvent, TokensEvent } from "../../schema/cluster/generate.ts";
import type { KvPart } from "../../schema/cluster/kv.ts";
import type { ArrivalProgress, ArrivalRequest } from "../../schema/cluster/moves.ts";
import { SllmError, type WireError } from "../../schema/error.ts";
import type { GatewayId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import { Changes } from "../changes.ts";
import { EngineRun } from "../generations/engine-run.ts";
import type { GenerateSettings } from "../instances/request-table.ts";
import type { Clock } from "../ports.ts";
import type { Adopted, ArrivalTarget } from "./arrivals.ts";
import type { KvFiles } from "./kv-files.ts";
import { endOf, tokensOf, unknownFrom } from "./told.ts";

export interface ArrivalOptions {
  readonly request: ArrivalRequest;
  readonly instance: ArrivalTarget;
  /** Rows of the KV cache come before anything is computed. */
  readonly takesKv: boolean;
  readonly kvFiles: KvFiles;
  readonly clock: Clock;
  /** It goes on here, or nobody will ask for it any more: called once. */
  readonly onGone: (arrival: Arrival) => void;
}

export class Arrival {
  readonly epoch: number;
  readonly #options: ArrivalOptions;
  readonly #run: EngineRun;
  readonly #told: TokensEvent[];
  readonly #changes = new Changes();
  readonly #over = new AbortController();
  /** Output tokens up to which all is computed. */
  #computed: number | null = null;
  /** Of prompt and output, which the engine had computed for others. */
  #cached = 0;
  #error: WireError | null = null;
  #adopted: Adopted | null = null;
  #isDropped = false;
  #heard_ms: number;

  /** Gives it to the engine, held. */
  constructor(options: ArrivalOptions) {
    const { request, instance, takesKv, clock } = options;
    this.epoch = request.epoch;
    this.#options = options;
    this.#told = [...request.history.told];
    this.#heard_ms = clock.monotonicMs();
    const number = instance.submit(
      toSettings(request, takesKv),
      (event) => this.#onEvent(event),
      request.adapter,
    );
    this.#run = new EngineRun(instance, number);
    this.#run.followHeld((completion_tokens, cached_tokens) => {
      this.#computed = completion_tokens;
      this.#cached = cached_tokens;
      this.#changes.notify();
    });
    void this.#watchSource();
  }

  /** Rows of its first tokens, in order. Throws what the engine refuses them for. */
  async takeKv({ from, to, digest }: KvPart, rows: Uint8Array): Promise<void> {
    const { request, takesKv, kvFiles, clock } = this.#options;
    this.#heard_ms = clock.monotonicMs();
    if (!takesKv || request.kv === undefined || this.#adopted !== null) {
      throw new SllmError("state_conflict", "The generation waits for no rows of the KV cache.");
    }
    const file = await kvFiles.create();
    try {
      await file.write(rows);
      await this.#run.moveKv({ op: "load_kv", path: file.path, from, to, all: request.kv.tokens, digest });
    } finally {
      await file.remove();
    }
  }

  /** More output; what is known already changes nothing. Throws `invalid_request` for a gap. */
  take(told: readonly TokensEvent[]): void {
    this.#heard_ms = this.#options.clock.monotonicMs();
    const news = unknownFrom(told, this.#next);
    if (news.length === 0) return;
    this.#told.push(...news);
    this.#run.extend(tokensOf(news));
  }

  /** Resolves when all that is here now is computed, or after a while. Throws what the engine has ended it with. */
  async caughtUp(wait_ms: number): Promise<ArrivalProgress> {
    if (wait_ms > 0) await this.#computes(this.#next, wait_ms);
    this.#throwIfFailed();
    const cached = this.#cached > 0 ? { cached_tokens: this.#cached } : {};
    return { completion_tokens: this.#next, computed_tokens: this.#computed, ...cached };
  }

  async #computes(wanted: number, wait_ms: number): Promise<void> {
    const timeout = new AbortController();
    const isLate = this.#options.clock.sleep(wait_ms, timeout.signal).then(() => true);
    try {
      while (this.#error === null && this.#adopted === null && (this.#computed ?? -1) < wanted) {
        if (await Promise.race([isLate, this.#changes.wait().then(() => false)])) break;
      }
    } finally {
      timeout.abort();
    }
  }

  /** All of it is here: it goes on, as a generation of this worker. Throws what `adopt` throws. */
  go(
    owner: GatewayId | null,
    told: readonly TokensEvent[],
    adopt: (request: GenerateRequest, run: EngineRun) => Adopted,
  ): void {
    this.#throwIfFailed();
    const news = unknownFrom(told, this.#next);
    const { request } = this.#options;
    const { checkpoint: _, owner: __, kv: ___, cached_tokens: ____, ...generate } = request;
    const all = [...this.#told, ...news];
    const adopted = adopt(
      {
        ...generate,
        ...(owner === null ? {} : { owner }),
        resume: { prompt: request.resume.prompt, output: [...request.resume.output, ...this.#since(news)] },
        history: { hops: request.history.hops, told: all },
      },
      this.#run,
    );
    this.#adopted = adopted;
    this.#gone();
    this.#run.go(tokensOf(news));
  }

  /** Its source wants it no more. */
  drop(): void {
    if (this.#adopted !== null || this.#isDropped) return;
    this.#isDropped = true;
    if (this.#error === null) this.#run.cancel();
    else this.#gone();
  }

  /** One beyond the last output token. */
  get #next(): number {
    const last = this.#told.at(-1);
    return last === undefined ? this.#options.request.resume.output.length : endOf(last);
  }

  /** Output that came after the request. */
  #since(news: readonly TokensEvent[]): number[] {
    const { length } = this.#options.request.resume.output;
    return tokensOf(unknownFrom([...this.#told, ...news], length));
  }

  #onEvent(event: GenerationEvent): void {
    if (this.#adopted !== null) {
      this.#adopted(this.#asBegun(event));
      return;
    }
    // Before it goes on nothing but its end can come.
    if (event.type !== "error") return;
    this.#error = event.error;
    this.#changes.notify();
    // Kept until its source has heard why, or drops it.
    if (this.#isDropped) this.#gone();
  }

  /** What the usage says of the prompt is what was found where it began. */
  #asBegun(event: GenerationEvent): GenerationEvent {
    if (event.type !== "started" && event.type !== "done") return event;
    const { cached_tokens: _, ...rest } = event;
    const { cached_tokens = 0 } = this.#options.request;
    return cached_tokens > 0 ? { ...rest, cached_tokens } : rest;
  }

  #throwIfFailed(): void {
    if (this.#error !== null) throw new SllmError(this.#error.code, this.#error.message);
  }

  #gone(): void {
    this.#over.abort();
    this.#options.onGone(this);
    this.#changes.notify();
  }

  /** A source that is gone cannot say so: what nobody speaks of any more frees its slot. */
  async #watchSource(): Promise<void> {
    const { clock } = this.#options;
    const { signal } = this.#over;
    while (!signal.aborted) {
      const left_ms = this.#heard_ms + limits.arrival_idle_ms - clock.monotonicMs();
      if (left_ms <= 0) {
        this.drop();
        return;
      }
      await clock.sleep(left_ms, signal);
    }
  }
}

function toSettings(request: ArrivalRequest, awaits_kv: boolean): GenerateSettings {
  const { prompt, sampling, stop, max_tokens, ignore_eos, format, resume } = request;
  return {
    ...{ prompt, sampling, stop, max_tokens, ignore_eos, resume },
    ...(format === undefined ? {} : { format }),
    held: true,
    ...(awaits_kv ? { awaits_kv } : {}),
    tell_prompt: true,
  };
}
