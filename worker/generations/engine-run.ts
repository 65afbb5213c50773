/** A generation's request at an instance's engine, as those see it who hold it, let it go on or end it. */
import type { Instance } from "../instances/instance.ts";

export class EngineRun {
  readonly #instance: Pick<Instance, "cancel" | "hold" | "extend" | "followHeld">;
  readonly #number: number;
  #onHeld: ((completion_tokens: number) => void) | null = null;

  constructor(instance: Pick<Instance, "cancel" | "hold" | "extend" | "followHeld">, number: number) {
    this.#instance = instance;
    this.#number = number;
    instance.followHeld(number, (completion_tokens) => this.#onHeld?.(completion_tokens));
  }

  cancel(): void {
    this.#instance.cancel(this.#number);
  }

  /** Resolves when no token is drawn any more; never, when the request ends before: who holds it follows its events. */
  hold(): Promise<void> {
    return new Promise((resolve) => {
      this.#onHeld = () => resolve();
      this.#instance.hold(this.#number);
    });
  }

  /** Tells how many output tokens a request that came held has, with all but the last one computed. */
  followHeld(onHeld: (completion_tokens: number) => void): void {
    this.#onHeld = onHeld;
  }

  /** More output of a request that came held. */
  extend(tokens: readonly number[]): void {
    this.#instance.extend(this.#number, tokens, false);
  }

  /** A held request goes on, after these tokens if it came held. */
  go(tokens: readonly number[] = []): void {
    this.#instance.extend(this.#number, tokens, true);
  }
}
