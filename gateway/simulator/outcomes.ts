/** What became of the requests of a simulation, in columns. */

export const outcomeStates = ["open", "served", "late", "refused"] as const;
export type OutcomeState = (typeof outcomeStates)[number];

export class Outcomes {
  readonly count: number;
  /** Time without an instance, in all; also of what came after a preemption. Until it gave up for those never served. */
  readonly startup_ms: Float64Array;
  /** Until the first token; not a number for those never served. */
  readonly ttft_ms: Float64Array;
  /** Time without tokens after the first one. */
  readonly pause_ms: Float64Array;
  readonly end_ms: Float64Array;
  readonly #states: Uint8Array;
  /** Place among `tiers` of where the weights came from for those that waited for a start, plus one; 0: warm. */
  readonly tier: Uint8Array;
  readonly preemptions: Uint8Array;
  readonly migrations: Uint8Array;

  constructor(count: number) {
    this.count = count;
    this.startup_ms = new Float64Array(count);
    this.ttft_ms = new Float64Array(count).fill(Number.NaN);
    this.pause_ms = new Float64Array(count);
    this.end_ms = new Float64Array(count);
    this.#states = new Uint8Array(count);
    this.tier = new Uint8Array(count);
    this.preemptions = new Uint8Array(count);
    this.migrations = new Uint8Array(count);
  }

  state(index: number): OutcomeState {
    return outcomeStates[this.#states[index] ?? 0] ?? "open";
  }

  /** Throws for one that has ended: nothing ends twice. */
  end(index: number, state: Exclude<OutcomeState, "open">, at_ms: number): void {
    if (this.#states[index] !== 0) throw new Error(`request ${index} ended twice`);
    this.#states[index] = outcomeStates.indexOf(state);
    this.end_ms[index] = at_ms;
  }

  add(column: "startup_ms" | "pause_ms", index: number, ms: number): void {
    this[column][index] = (this[column][index] ?? 0) + ms;
  }

  bump(column: "preemptions" | "migrations", index: number): void {
    this[column][index] = (this[column][index] ?? 0) + 1;
  }
}
