/** Lets many wait for "something changed" without queues: whoever wakes looks at the state itself. */

/** A wake-up call that is missed is no loss, because state is looked at before every wait. */
export class Changes {
  #next = Promise.withResolvers<void>();

  /** Wakes everyone who waits now. */
  notify(): void {
    const { resolve } = this.#next;
    this.#next = Promise.withResolvers<void>();
    resolve();
  }

  /** Resolves at the next `notify`. */
  wait(): Promise<void> {
    return this.#next.promise;
  }
}
