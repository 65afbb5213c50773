/** Shares what was learned with other gateways and with the time after a restart, at a bounded rate. */
import { limits } from "../../schema/limits.ts";
import type { LearnedEstimates } from "../placement/estimates/learned-estimates.ts";
import type { StateStore } from "../ports.ts";

export class EstimateSync {
  readonly #estimates: LearnedEstimates;
  readonly #store: Pick<StateStore, "recordEstimates" | "estimates">;
  #last_ms: number | null = null;

  constructor(estimates: LearnedEstimates, store: Pick<StateStore, "recordEstimates" | "estimates">) {
    this.#estimates = estimates;
    this.#store = store;
  }

  /** Writes what is new here, then reads what all have written. Throws what the store throws; nothing is lost then. */
  async sync(now_ms: number): Promise<void> {
    if (this.#last_ms !== null && now_ms - this.#last_ms < limits.estimate_sync_ms) return;
    await this.write();
    this.#estimates.replace(await this.#store.estimates());
    this.#last_ms = now_ms;
  }

  /** Writes what is new here, also when a gateway ends. */
  async write(): Promise<void> {
    const observed = this.#estimates.takePending();
    if (observed.length === 0) return;
    try {
      await this.#store.recordEstimates(observed);
    } catch (error) {
      this.#estimates.putBack(observed);
      throw error;
    }
  }
}
