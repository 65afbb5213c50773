/** What is said with an engine about parking: asks it to let memory go, and knows what it has confirmed. */
import { limits } from "../../schema/limits.ts";
import type { Clock } from "../ports.ts";
import { settlesInTime } from "../within-time.ts";
import type { EngineHandle } from "./engine-process.ts";

/** Of one engine process. Answers come in the order of the questions. */
export class Parking {
  readonly #engine: Pick<EngineHandle, "send" | "kill">;
  readonly #clock: Clock;
  readonly #asked: ReturnType<typeof Promise.withResolvers<boolean>>[] = [];
  #ended = false;

  constructor(engine: Pick<EngineHandle, "send" | "kill">, clock: Clock) {
    this.#engine = engine;
    this.#clock = clock;
  }

  /**
   * True when the engine has done it; false when it has ended instead, which lets everything go as well. One that does
   * not answer is killed: only then its memory is surely let go.
   */
  async park(keep_weights: boolean): Promise<boolean> {
    if (this.#ended) return false;
    const answer = Promise.withResolvers<boolean>();
    this.#asked.push(answer);
    this.#engine.send({ op: "park", keep_weights });
    if (!(await settlesInTime(answer.promise, this.#clock, limits.engine_park_ms))) this.#engine.kill();
    return await answer.promise;
  }

  /** The engine's answer. */
  onParked(): void {
    this.#asked.shift()?.resolve(true);
  }

  onEnd(): void {
    this.#ended = true;
    for (const answer of this.#asked.splice(0)) answer.resolve(false);
  }
}
