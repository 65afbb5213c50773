/** Who uses which instance at this gateway: counts, last uses, and whom to tell when an instance is lost. */
import type { InstanceId } from "../../schema/ids.ts";
import type { Clock } from "../ports.ts";
import { type InstanceUsage, unused, type WorkView } from "../scheduler/view.ts";

/** Held from the decision for an instance until the generation ended there. */
export interface InstanceUse {
  /** The generation runs with so many prompt tokens; it will have at most so many of output. */
  begun(prompt_tokens: number, most_tokens: number): void;
  /** Output tokens that it now has more. */
  count(tokens: number): void;
  /** Gives it back; the second and later calls do nothing. */
  release(): void;
}

type Usage = { -readonly [K in keyof Omit<InstanceUsage, "works">]: InstanceUsage[K] } & {
  readonly works: Set<WorkView>;
};

export class InstanceUses {
  readonly #clock: Pick<Clock, "wallMs">;
  readonly #usages = new Map<InstanceId, Usage>();
  readonly #onLost = new Map<InstanceId, Set<() => void>>();

  constructor(clock: Pick<Clock, "wallMs">) {
    this.#clock = clock;
  }

  /** Live: the same object follows every later use until the instance is forgotten. */
  of(instance_id: InstanceId): InstanceUsage {
    return this.#of(instance_id);
  }

  /** As it is now; of instances nobody used, too. */
  peek(instance_id: InstanceId): InstanceUsage {
    return this.#usages.get(instance_id) ?? unused;
  }

  #of(instance_id: InstanceId): Usage {
    const known = this.#usages.get(instance_id) ?? { ...unused, works: new Set<WorkView>() };
    this.#usages.set(instance_id, known);
    return known;
  }

  /**
   * Counts one more user. `onLost` is called at most once, if the instance ends before the release; `onReleased` once,
   * with whether that left the instance idle.
   */
  acquire(instance_id: InstanceId, onLost: () => void, onReleased: (isIdle: boolean) => void): InstanceUse {
    const usage = this.#of(instance_id);
    if (usage.in_flight === 0) usage.busy_since_ms = this.#clock.wallMs();
    usage.in_flight += 1;
    const listeners = this.#onLost.get(instance_id) ?? new Set();
    this.#onLost.set(instance_id, listeners);
    // A function of its own per use: the same callback given twice must count twice.
    const listener = () => onLost();
    listeners.add(listener);
    let counted = 0;
    let released = false;
    const work = { prompt_tokens: 0, begun_ms: 0, output_tokens: 0, most_tokens: 0 };
    const add = (tokens: number) => {
      counted += tokens;
      usage.tokens += tokens;
    };
    return {
      begun: (prompt_tokens, most_tokens) => {
        if (released) return;
        work.prompt_tokens = prompt_tokens;
        work.begun_ms = this.#clock.wallMs();
        work.most_tokens = most_tokens;
        if (most_tokens > 0) usage.works.add(work);
        add(prompt_tokens);
      },
      count: (tokens) => {
        if (released) return;
        work.output_tokens += tokens;
        add(tokens);
      },
      release: () => {
        if (released) return;
        released = true;
        listeners.delete(listener);
        usage.tokens -= counted;
        usage.works.delete(work);
        usage.in_flight -= 1;
        usage.last_used_ms = Math.max(usage.last_used_ms, this.#clock.wallMs());
        if (usage.in_flight === 0) {
          usage.busy_since_ms = null;
          this.#onLost.delete(instance_id);
        }
        onReleased(usage.in_flight === 0);
      },
    };
  }

  /** Notes a use; the time never goes back. */
  markUsed(instance_id: InstanceId, at_ms: number): void {
    const usage = this.#of(instance_id);
    usage.last_used_ms = Math.max(usage.last_used_ms, at_ms);
  }

  /** Notes when a load is expected to end, and to have its bytes from the disk or from elsewhere. */
  expectReady(
    instance_id: InstanceId,
    ready_at_ms: number,
    arrives_at_ms: number | null,
    is_fetched: boolean,
  ): void {
    const usage = this.#of(instance_id);
    usage.is_fetched = is_fetched;
    usage.ready_at_ms = ready_at_ms;
    usage.arrives_at_ms = arrives_at_ms;
  }

  /** Forgets instances that ended and tells their users. */
  keepOnly(isLive: (instance_id: InstanceId) => boolean): void {
    for (const instance_id of this.#usages.keys()) if (!isLive(instance_id)) this.forget(instance_id);
  }

  /** The instance has ended: its users are told. */
  forget(instance_id: InstanceId): void {
    if (this.peek(instance_id).in_flight === 0) this.#usages.delete(instance_id);
    const listeners = this.#onLost.get(instance_id);
    this.#onLost.delete(instance_id);
    for (const tell of [...(listeners ?? [])]) tell();
  }
}
