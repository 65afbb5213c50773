/**
 * Writes the rows of generations beside their streams: never waited for by a client, never fatal to one. While the
 * database is away they wait for it, in a bounded number.
 */
import type { ExplainedDecision } from "../../schema/api/admin.ts";
import type { GenerationId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import { writeWhenPossible } from "../placement/state-writes.ts";
import type { Clock, GenerationMove, Log, NewGeneration, StateStore } from "../ports.ts";
import { type Explanations, toExplainedDecision } from "./explanations.ts";

export interface RecordsDeps {
  readonly store: Pick<StateStore, "insertGeneration" | "moveGeneration">;
  readonly explanations: Pick<Explanations, "of">;
  readonly clock: Pick<Clock, "sleep">;
  readonly log: Log;
}

export class GenerationRecords {
  readonly #deps: RecordsDeps;
  readonly #closing = new AbortController();
  /** The last write of each generation that is still under way; its next write waits for it. */
  readonly #underWay = new Map<GenerationId, Promise<void>>();

  constructor(deps: RecordsDeps) {
    this.#deps = deps;
  }

  /**
   * The row and the decisions so far, so that any gateway can say why the request waits. One that was served at once waits
   * for nothing: its decision comes with its end.
   */
  begin(generation: NewGeneration): void {
    const { store, explanations } = this.#deps;
    const { generation_id } = generation;
    const hasWaited = explanations.of(generation_id)?.some(({ action }) => action.kind !== "use") === true;
    const row = hasWaited ? { ...generation, ...this.#decisionsFor(generation_id) } : generation;
    this.#write(generation_id, () => store.insertGeneration(row));
  }

  end(move: GenerationMove): void {
    const { store, log } = this.#deps;
    const whole = { ...move, ...this.#decisionsFor(move.generation_id) };
    let tries = 0;
    this.#write(move.generation_id, async () => {
      tries += 1;
      // A try whose answer was lost may have moved the row: then there is nothing left to move.
      if (!(await store.moveGeneration(whole)) && tries === 1) {
        log.warn("generation_row_missing", { generation_id: move.generation_id, to: move.to });
      }
    });
  }

  /**
   * Resolves when everything begun so far is written or has failed; writes no longer wait for a database that is away.
   */
  async close(): Promise<void> {
    this.#closing.abort();
    await Promise.all([...this.#underWay.values()]);
  }

  #decisionsFor(generation_id: GenerationId): { decisions?: ExplainedDecision[] } {
    const noted = this.#deps.explanations.of(generation_id);
    return noted === null ? {} : { decisions: noted.map(toExplainedDecision) };
  }

  /** A database slower than the traffic loses records, not the gateway its memory. */
  #write(generation_id: GenerationId, write: () => Promise<void>): void {
    const { clock, log } = this.#deps;
    const before = this.#underWay.get(generation_id);
    if (before === undefined && this.#underWay.size >= limits.waiting_requests) {
      log.warn("generation_row_dropped", { generation_id });
      return;
    }
    const run = (before ?? Promise.resolve())
      .then(() => writeWhenPossible(clock, this.#closing.signal, write))
      .catch((error: unknown) => {
        log.error("generation_row_failed", { generation_id }, error);
      });
    const done = run.then(() => {
      if (this.#underWay.get(generation_id) === done) this.#underWay.delete(generation_id);
    });
    this.#underWay.set(generation_id, done);
  }
}
