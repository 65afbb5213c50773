/**
 * Writes the rows of generations beside their streams: never waited for by a client, never fatal to one. What comes
 * within a moment is written together, after it, so that the database works neither for each request alone nor while
 * its first token is due. While the database is away rows wait for it, in a bounded number.
 */
import type { ExplainedDecision } from "../../schema/api/admin.ts";
import type { GenerationId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import { writeWhenPossible } from "../placement/state-writes.ts";
import type { Clock, GenerationMove, Log, NewGeneration, StateStore } from "../ports.ts";
import { type Explanations, toExplainedDecision } from "./explanations.ts";

export interface RecordsDeps {
  readonly store: Pick<StateStore, "insertGenerations" | "moveGenerations">;
  readonly explanations: Pick<Explanations, "of">;
  readonly clock: Pick<Clock, "sleep">;
  readonly log: Log;
}

export class GenerationRecords {
  readonly #deps: RecordsDeps;
  readonly #closing = new AbortController();
  /** What nobody has begun to write, in the order it came. */
  readonly #begun = new Map<GenerationId, NewGeneration>();
  readonly #ended = new Map<GenerationId, GenerationMove>();
  #writing: Promise<void> | null = null;

  constructor(deps: RecordsDeps) {
    this.#deps = deps;
  }

  /**
   * The row and the decisions so far, so that any gateway can say why the request waits. One that was served at once waits
   * for nothing: its decision comes with its end.
   */
  begin(generation: NewGeneration): void {
    const { generation_id } = generation;
    if (!this.#hasRoom(generation_id)) return;
    const { explanations } = this.#deps;
    const hasWaited = explanations.of(generation_id)?.some(({ action }) => action.kind !== "use") === true;
    const row = hasWaited ? { ...generation, ...this.#decisionsFor(generation_id) } : generation;
    this.#begun.set(generation_id, row);
    this.#writing ??= this.#write();
  }

  end(move: GenerationMove): void {
    const { generation_id } = move;
    if (!this.#begun.has(generation_id) && !this.#hasRoom(generation_id)) return;
    this.#ended.set(generation_id, { ...move, ...this.#decisionsFor(generation_id) });
    this.#writing ??= this.#write();
  }

  /** Resolves when everything so far is written or has failed; nothing waits any more for a database that is away. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#writing;
  }

  #decisionsFor(generation_id: GenerationId): { decisions?: ExplainedDecision[] } {
    const noted = this.#deps.explanations.of(generation_id);
    return noted === null ? {} : { decisions: noted.map(toExplainedDecision) };
  }

  /** A database slower than the traffic loses records, not the gateway its memory. */
  #hasRoom(generation_id: GenerationId): boolean {
    if (this.#begun.size + this.#ended.size < limits.waiting_requests) return true;
    this.#deps.log.warn("generation_row_dropped", { generation_id });
    return false;
  }

  async #write(): Promise<void> {
    const { clock } = this.#deps;
    while (this.#begun.size + this.#ended.size > 0) {
      await clock.sleep(limits.record_gather_ms, this.#closing.signal);
      // Ends are taken first: their beginnings are then written already, or in the same round.
      const moves = take(this.#ended);
      await this.#each(take(this.#begun), (rows) => this.#insert(rows));
      await this.#each(moves, (some) => this.#move(some));
    }
    this.#writing = null;
  }

  /** A part at a time. When one fails, each of its rows is tried alone: a bad one takes no others with it. */
  async #each<T extends { generation_id: GenerationId }>(
    all: readonly T[],
    write: (part: readonly T[]) => Promise<void>,
  ): Promise<void> {
    const { clock, log } = this.#deps;
    const whenPossible = (part: readonly T[]) =>
      writeWhenPossible(clock, this.#closing.signal, () => write(part));
    for (let first = 0; first < all.length; first += limits.record_batch) {
      const part = all.slice(first, first + limits.record_batch);
      try {
        await whenPossible(part);
      } catch (failure) {
        for (const row of part) {
          const error = part.length === 1 ? failure : await failureOf(whenPossible([row]));
          if (error !== null) log.error("generation_row_failed", { generation_id: row.generation_id }, error);
        }
      }
    }
  }

  async #insert(rows: readonly NewGeneration[]): Promise<void> {
    await this.#deps.store.insertGenerations(rows);
  }

  /** A row that does not move was dropped, or a try whose answer was lost has moved it. */
  async #move(moves: readonly GenerationMove[]): Promise<void> {
    const moved = new Set(await this.#deps.store.moveGenerations(moves));
    for (const { generation_id, to } of moves) {
      if (!moved.has(generation_id)) this.#deps.log.warn("generation_row_missing", { generation_id, to });
    }
  }
}

function take<T>(waiting: Map<GenerationId, T>): T[] {
  const all = [...waiting.values()];
  waiting.clear();
  return all;
}

async function failureOf(write: Promise<void>): Promise<unknown> {
  return await write.then(
    () => null,
    (error: unknown) => error,
  );
}
