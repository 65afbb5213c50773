/** Forgets records of what ended long ago, a bounded number at a time. Only the leader does. */
import { limits } from "../../schema/limits.ts";
import type { Log, Retention, StateStore } from "../ports.ts";

export class RetentionSweep {
  readonly #ages: Omit<Retention, "limit">;
  readonly #deps: { readonly store: Pick<StateStore, "forget">; readonly log: Log };
  #next_ms = Number.NEGATIVE_INFINITY;

  /** The ages at which records go. */
  constructor(
    deps: { readonly store: Pick<StateStore, "forget">; readonly log: Log },
    ages: Omit<Retention, "limit">,
  ) {
    this.#deps = deps;
    this.#ages = ages;
  }

  /** One removal if it is time for one. Throws what the store throws. */
  async run(now_ms: number): Promise<void> {
    if (now_ms < this.#next_ms) return;
    this.#next_ms = now_ms + limits.retention_pause_ms;
    const { store, log } = this.#deps;
    const removed = await store.forget({ ...this.#ages, limit: limits.retention_rows });
    if (removed === 0) return;
    log.info("records_forgotten", { rows: removed });
    // Some kind may have more that are old: busy clusters leave records faster than one removal in a while takes.
    if (removed >= limits.retention_rows) this.#next_ms = now_ms;
  }
}
