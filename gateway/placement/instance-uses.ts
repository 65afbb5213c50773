/** Who uses which instance at this gateway: counts, last uses, and whom to tell when an instance is lost. */
import type { InstanceId } from "../../schema/ids.ts";
import type { Clock } from "../ports.ts";

/** Held from the decision for an instance until the generation ended there. */
export interface InstanceUse {
  /** Gives it back; the second and later calls do nothing. */
  release(): void;
}

export class InstanceUses {
  readonly #clock: Pick<Clock, "wallMs">;
  readonly #inFlight = new Map<InstanceId, number>();
  readonly #lastUsed = new Map<InstanceId, number>();
  readonly #onLost = new Map<InstanceId, Set<() => void>>();

  constructor(clock: Pick<Clock, "wallMs">) {
    this.#clock = clock;
  }

  /** Live: follows every acquire and release. An idle instance has no entry. */
  get in_flight(): ReadonlyMap<InstanceId, number> {
    return this.#inFlight;
  }

  /** Live: wall time of the last use of each instance, as far as it is known here. */
  get last_used_ms(): ReadonlyMap<InstanceId, number> {
    return this.#lastUsed;
  }

  /** Counts one more user. `onLost` is called at most once, if the instance ends before the release. */
  acquire(instance_id: InstanceId, onLost: () => void, onIdle: () => void): InstanceUse {
    this.#inFlight.set(instance_id, (this.#inFlight.get(instance_id) ?? 0) + 1);
    const listeners = this.#onLost.get(instance_id) ?? new Set();
    this.#onLost.set(instance_id, listeners);
    // A function of its own per use: the same callback given twice must count twice.
    const listener = () => onLost();
    listeners.add(listener);
    let released = false;
    return {
      release: () => {
        if (released) return;
        released = true;
        listeners.delete(listener);
        this.#giveBack(instance_id, onIdle);
      },
    };
  }

  #giveBack(instance_id: InstanceId, onIdle: () => void): void {
    const left = (this.#inFlight.get(instance_id) ?? 1) - 1;
    this.markUsed(instance_id, this.#clock.wallMs());
    if (left > 0) {
      this.#inFlight.set(instance_id, left);
      return;
    }
    this.#inFlight.delete(instance_id);
    this.#onLost.delete(instance_id);
    onIdle();
  }

  /** Records a use at a time; an older time than the known one changes nothing. */
  markUsed(instance_id: InstanceId, at_ms: number): void {
    if (at_ms > (this.#lastUsed.get(instance_id) ?? 0)) this.#lastUsed.set(instance_id, at_ms);
  }

  /** Forgets instances that ended and tells their users. */
  keepOnly(isLive: (instance_id: InstanceId) => boolean): void {
    for (const instance_id of this.#lastUsed.keys()) {
      if (!isLive(instance_id)) this.#lastUsed.delete(instance_id);
    }
    for (const [instance_id, listeners] of this.#onLost) {
      if (isLive(instance_id)) continue;
      this.#onLost.delete(instance_id);
      for (const tell of [...listeners]) tell();
    }
  }
}
