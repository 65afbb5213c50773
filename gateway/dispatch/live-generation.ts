/**
 * A generation that several may read and that goes on without them: driven here, told to any number of readers from any
 * token on. Who left it without a reader is asked for by its time; then it is cancelled, if nobody reads it elsewhere.
 */
import { SllmError, toSllmError } from "../../schema/error.ts";
import type { GenerationId, WorkerId } from "../../schema/ids.ts";
import type { Clock, Log } from "../ports.ts";
import { isOnPath } from "./due.ts";
import type { Generation } from "./generation.ts";
import { tailOf } from "./told.ts";
import type { GenerationUpdate, WaitingUpdate } from "./updates.ts";

/** The driver as far as it is needed here. */
export interface Driven {
  readonly state: Generation;
}

export interface LiveOptions {
  readonly generation_id: GenerationId;
  readonly tenant: string;
  /** How long it goes on without a reader; null: to its end. */
  readonly resume_ms: number | null;
  readonly driven: Driven;
  readonly updates: AsyncIterable<GenerationUpdate>;
  /** Ends it for good. */
  readonly cancel: () => void;
  /** Its time without a reader is over: true when it ends now, false when somebody reads it elsewhere. */
  readonly giveUp: () => Promise<boolean>;
  readonly clock: Pick<Clock, "sleep">;
  readonly log: Log;
}

/** A reader's place: after which token it goes on, and where that was told. */
export interface ReadFrom {
  readonly after: number;
  readonly seen_worker: WorkerId | null;
}

type Kept = Exclude<GenerationUpdate, WaitingUpdate>;

export class LiveGeneration {
  readonly #options: LiveOptions;
  readonly #kept: Kept[] = [];
  #waiting: WaitingUpdate | null = null;
  #waitings = 0;
  #failure: SllmError | null = null;
  #isOver = false;
  #readers = 0;
  #changed = Promise.withResolvers<void>();
  #returned: AbortController | null = null;

  constructor(options: LiveOptions) {
    this.#options = options;
  }

  get generation_id(): GenerationId {
    return this.#options.generation_id;
  }

  get tenant(): string {
    return this.#options.tenant;
  }

  get state(): Generation {
    return this.#options.driven.state;
  }

  /** Takes everything that the driver tells until its end. Never rejects. */
  async run(): Promise<void> {
    try {
      for await (const update of this.#options.updates) {
        if (update.type === "waiting") {
          this.#waiting = update;
          this.#waitings += 1;
        } else this.#kept.push(update);
        this.#notify();
      }
    } catch (error) {
      this.#failure = toSllmError(error);
    } finally {
      this.#isOver = true;
      this.#returned?.abort();
      this.#notify();
    }
  }

  /** Counts as a reader until the generator returns. Throws `generation_lost` where it cannot go on after that token. */
  async *read({ after, seen_worker }: ReadFrom): AsyncGenerator<GenerationUpdate, void> {
    this.#enter();
    try {
      let heard = this.#waitings;
      for (let at = 0; ; ) {
        const update = this.#kept[at];
        if (update !== undefined) {
          at += 1;
          const rest = restOf(update, after);
          if (update.type === "text" || update.type === "done") this.#checkPath(after, seen_worker, update);
          if (update.type === "done") refuseBeyond(after, update.last_token_index + 1);
          if (rest !== null) yield rest;
          continue;
        }
        if (this.#failure !== null) throw this.#failure;
        if (this.#isOver) return;
        if (this.#waiting !== null && heard < this.#waitings) {
          heard = this.#waitings;
          yield this.#waiting;
          continue;
        }
        await this.#changed.promise;
      }
    } finally {
      this.#leave();
    }
  }

  cancel(): void {
    this.#options.cancel();
  }

  /** What was shown to a reader and is not on the path was told by a worker that nobody asked any more. */
  #checkPath(after: number, seen_worker: WorkerId | null, update: Kept & { last_token_index: number }): void {
    if (after < 0 || seen_worker === null) return;
    const { hops } = this.state;
    const isRegenerated = update.last_token_index > after && !isOnPath(hops, seen_worker, after);
    if (isRegenerated) {
      throw new SllmError(
        "generation_lost",
        "The generation went on without tokens that were told to this client.",
      );
    }
  }

  #enter(): void {
    this.#readers += 1;
    this.#returned?.abort();
    this.#returned = null;
  }

  #leave(): void {
    this.#readers -= 1;
    const { resume_ms } = this.#options;
    if (this.#readers > 0 || this.#isOver || resume_ms === null) return;
    const returned = new AbortController();
    this.#returned = returned;
    void this.#waitForReader(resume_ms, returned.signal);
  }

  async #waitForReader(resume_ms: number, returned: AbortSignal): Promise<void> {
    const { clock, giveUp, log, generation_id } = this.#options;
    for (;;) {
      await clock.sleep(resume_ms, returned);
      if (returned.aborted) return;
      if (await giveUp()) return;
      log.info("generation_read_elsewhere", { generation_id });
    }
  }

  #notify(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }
}

/** One beyond the last token stands for the end itself, which has been told. Throws `invalid_request`. */
export function refuseBeyond(after: number, tokens: number): void {
  if (after <= tokens) return;
  const message = `The generation has ${tokens} tokens; there is none after ${after}.`;
  throw new SllmError("invalid_request", message, { param: "starting_after" });
}

/** What of an update somebody has not had who has everything up to a token. */
function restOf(update: Kept, after: number): GenerationUpdate | null {
  if (update.type !== "text") return update;
  const first_index = update.last_token_index - update.tokens.length + 1;
  if (update.last_token_index <= after) return null;
  if (first_index > after) return update;
  const delta = update.delta === null ? {} : { delta: update.delta };
  const event = {
    type: "tokens" as const,
    choice: 0 as const,
    first_index,
    tokens: [...update.tokens],
    ...delta,
  };
  const { tokens } = tailOf(event, after + 1);
  return { ...update, tokens, text: tokens.map((token) => token.text).join("") };
}
