/** A generation's request at an instance's engine, as those see it who hold it, let it go on or end it. */
import { SllmError } from "../../schema/error.ts";
import type { Instance } from "../instances/instance.ts";
import type { HeldListener, KvMove } from "../instances/request-table.ts";

type Target = Pick<Instance, "cancel" | "hold" | "extend" | "followHeld" | "kv" | "moveKv">;

export class EngineRun {
  readonly #instance: Target;
  readonly #number: number;
  #onHeld: HeldListener | null = null;

  constructor(instance: Target, number: number) {
    this.#instance = instance;
    this.#number = number;
    instance.followHeld(number, (...held) => this.#onHeld?.(...held));
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
  followHeld(onHeld: HeldListener): void {
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

  /** Of the engine that it runs on; null where its KV cache cannot be moved. */
  get kv(): Target["kv"] {
    return this.#instance.kv;
  }

  /** Saves or loads rows of its KV cache; resolves with the digest of what was saved. Throws why nothing came of it. */
  async moveKv(what: KvMove): Promise<string> {
    const outcome = await this.#instance.moveKv(this.#number, what);
    if (outcome === null) throw new SllmError("state_conflict", "The generation has ended.");
    if (outcome.error !== undefined) throw new SllmError(outcome.error.code, outcome.error.message);
    return outcome.digest ?? "";
  }
}
