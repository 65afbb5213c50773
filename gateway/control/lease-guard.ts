/**
 * Decides whether silence of a worker may be held against it. While the database or this gateway was away, no
 * heartbeat could be written: only after a full lease of answers does a missing one mean something.
 */
export class LeaseGuard {
  readonly #lease_ms: number;
  #answeringSince_ms: number | null = null;
  #lastAnswer_ms: number | null = null;

  constructor(lease_ms: number) {
    this.#lease_ms = lease_ms;
  }

  /** The database answered. A gap as long as a lease, for whatever cause, starts the count anew. */
  answered(now_ms: number): void {
    const gap = this.#lastAnswer_ms !== null && now_ms - this.#lastAnswer_ms >= this.#lease_ms;
    if (this.#answeringSince_ms === null || gap) this.#answeringSince_ms = now_ms;
    this.#lastAnswer_ms = now_ms;
  }

  /** The database did not answer. */
  failed(): void {
    this.#answeringSince_ms = null;
  }

  mayExpire(now_ms: number): boolean {
    return this.#answeringSince_ms !== null && now_ms - this.#answeringSince_ms >= this.#lease_ms;
  }
}
