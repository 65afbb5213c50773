/**
 * Writes what resumable generations tell to the store, many at a time and never far behind: so any gateway can go on with
 * one whose worker and gateway are both gone, and tell it again when it has ended.
 */
import type { TokensEvent } from "../../schema/cluster/generate.ts";
import type { GenerationId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { Clock, Log, StateStore, TokenBatch } from "../ports.ts";
import type { GenerationDriver } from "./driver.ts";
import { isDatabaseAway } from "./patience.ts";

export interface BatchesDeps {
  readonly store: Pick<StateStore, "appendTokens">;
  readonly clock: Pick<Clock, "sleep">;
  readonly log: Log;
}

type Source = Pick<GenerationDriver, "state" | "told" | "prompt" | "done" | "stored_index" | "recheck">;

interface Followed {
  readonly source: Source;
  /** Index of the first token that is not written. */
  written: number;
  wrotePrompt: boolean;
  wroteDone: boolean;
  hops: number;
}

export class TokenBatches {
  readonly #deps: BatchesDeps;
  readonly #followed = new Map<GenerationId, Followed>();
  readonly #closing = new AbortController();
  #running: Promise<void> | null = null;

  constructor(deps: BatchesDeps) {
    this.#deps = deps;
  }

  /** From now on what it tells is written, while it is this gateway's. */
  follow(source: Source): void {
    const { generation_id } = source.state;
    const wrotePrompt = source.prompt !== null && source.told.next_index > 0;
    this.#followed.set(generation_id, {
      ...{ source, written: source.told.next_index, wrotePrompt, wroteDone: false, hops: 0 },
    });
    this.#running ??= this.#run();
  }

  /** Its end has come: writes what is left. Resolves when that is done or cannot be. Never rejects. */
  async finish(generation_id: GenerationId): Promise<void> {
    const followed = this.#followed.get(generation_id);
    if (followed === undefined) return;
    let pause_ms: number = limits.token_batch_ms;
    while (!(await this.#write([followed])) && !this.#closing.signal.aborted) {
      await this.#deps.clock.sleep(pause_ms, this.#closing.signal);
      pause_ms = Math.min(2 * pause_ms, limits.failover_pause_ms);
    }
    this.#followed.delete(generation_id);
  }

  /** Resolves when the last write has ended; nothing waits any more for a database that is away. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    while (this.#followed.size > 0 && !signal.aborted) {
      await this.#deps.clock.sleep(limits.token_batch_ms, signal);
      const all = [...this.#followed.values()];
      for (let first = 0; first < all.length; first += limits.record_batch) {
        await this.#write(all.slice(first, first + limits.record_batch));
      }
    }
    this.#running = null;
  }

  /** False when the database is away: nothing is written then, and nothing lost. */
  async #write(part: readonly Followed[]): Promise<boolean> {
    const news = part.flatMap((followed) => {
      const batch = toBatch(followed);
      return batch === null ? [] : [{ followed, batch, next: followed.source.told.next_index }];
    });
    if (news.length === 0) return true;
    try {
      const written = new Set(await this.#deps.store.appendTokens(news.map(({ batch }) => batch)));
      for (const { followed, batch, next } of news) {
        if (!written.has(batch.generation_id)) {
          // The row has another epoch or has ended: somebody else sees to it.
          void followed.source.recheck();
          continue;
        }
        followed.written = next;
        followed.hops = batch.hops.length;
        followed.wrotePrompt ||= batch.prompt !== null;
        followed.wroteDone ||= batch.done !== null;
      }
      return true;
    } catch (error) {
      if (isDatabaseAway(error)) return false;
      for (const { batch } of news) {
        this.#deps.log.error("tokens_not_written", { generation_id: batch.generation_id }, error);
      }
      return true;
    }
  }
}

/** What is not written yet; null when there is nothing, or it is another gateway's to write. */
function toBatch({ source, wrotePrompt, wroteDone, hops, ...followed }: Followed): TokenBatch | null {
  const { state, told, prompt, done } = source;
  const written = Math.max(followed.written, source.stored_index);
  const { generation_id, epoch, is_owner } = state;
  const { worker_id, instance_id } = state.hand_over ?? state;
  if (!is_owner || worker_id === null || instance_id === null) return null;
  const hasNews =
    told.next_index > written ||
    state.hops.length !== hops ||
    (prompt !== null && !wrotePrompt) ||
    (done !== null && !wroteDone);
  if (!hasNews) return null;
  const events: TokensEvent[] = told.next_index > written ? told.from(written) : [];
  return {
    ...{ generation_id, epoch, worker_id, instance_id, hops: state.hops, events },
    prompt: wrotePrompt ? null : prompt,
    done: wroteDone ? null : done,
  };
}
