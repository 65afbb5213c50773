/** Writes the rows of generations beside their streams: never waited for by a client, never fatal to one. */
import type { GenerationId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { GenerationMove, Log, NewGeneration, StateStore } from "../ports.ts";

type RecordStore = Pick<StateStore, "insertGeneration" | "moveGeneration">;

export class GenerationRecords {
  readonly #store: RecordStore;
  readonly #log: Log;
  /** The last write of each generation that is still under way; its next write waits for it. */
  readonly #underWay = new Map<GenerationId, Promise<void>>();

  constructor(store: RecordStore, log: Log) {
    this.#store = store;
    this.#log = log;
  }

  begin(generation: NewGeneration): void {
    this.#write(generation.generation_id, () => this.#store.insertGeneration(generation));
  }

  end(move: GenerationMove): void {
    this.#write(move.generation_id, async () => {
      const moved = await this.#store.moveGeneration(move);
      if (!moved)
        this.#log.warn("generation_row_missing", { generation_id: move.generation_id, to: move.to });
    });
  }

  /** Resolves when everything begun so far is written or has failed. */
  async idle(): Promise<void> {
    await Promise.all([...this.#underWay.values()]);
  }

  /** A database slower than the traffic loses records, not the gateway its memory. */
  #write(generation_id: GenerationId, write: () => Promise<void>): void {
    const before = this.#underWay.get(generation_id);
    if (before === undefined && this.#underWay.size >= limits.waiting_requests) {
      this.#log.warn("generation_row_dropped", { generation_id });
      return;
    }
    const run = (before ?? Promise.resolve()).then(write).catch((error: unknown) => {
      this.#log.error("generation_row_failed", { generation_id }, error);
    });
    const done = run.then(() => {
      if (this.#underWay.get(generation_id) === done) this.#underWay.delete(generation_id);
    });
    this.#underWay.set(generation_id, done);
  }
}
