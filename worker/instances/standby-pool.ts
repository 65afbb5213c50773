/**
 * Engine processes in reserve: started ahead, with everything loaded that no model decides, and some with the skeleton
 * of a model that is likely to be wanted. A load takes one, or starts its own process when there is none; the reserve
 * is filled again when no load wants the processor.
 */
import type { engineKinds } from "../../schema/cluster/engine.ts";
import { limits } from "../../schema/limits.ts";
import { Changes } from "../changes.ts";
import type { Clock, Log } from "../ports.ts";
import { settlesInTime } from "../within-time.ts";
import type { EngineEnd, LaunchEngine, Skeleton } from "./engine-process.ts";
import { skeletonKey } from "./likely-models.ts";
import { Standby } from "./standby.ts";

export interface StandbyPoolOptions {
  /** How many wait at most; 0 turns the reserve off. */
  readonly size: number;
  /** How many hold a skeleton beside these. */
  readonly skeletons: number;
  readonly launch: LaunchEngine;
  readonly engine: (typeof engineKinds)[number];
  readonly clock: Clock;
  readonly log: Log;
  /** Another process is ready to be taken, or one that was is gone: what starts will take is another time now. */
  readonly onChange: () => void;
}

/** Nothing starts before `start`; `stop` is the end. */
export class StandbyPool {
  readonly #options: StandbyPoolOptions;
  readonly #standbys: Standby[] = [];
  readonly #changes = new Changes();
  #likely: readonly Skeleton[] = [];
  /** What could not be built, until it is likely no more: its header may be gone. */
  readonly #refused = new Set<string>();
  #isLoading = false;
  /** Earliest time of the next start. */
  #notBeforeMs = 0;
  #failures = 0;
  #stopped = false;
  #filling: Promise<void> = Promise.resolve();

  constructor(options: StandbyPoolOptions) {
    this.#options = options;
  }

  /** Processes that wait with everything loaded. */
  get warm(): number {
    return this.#standbys.filter((standby) => standby.isReady && standby.skeleton === null).length;
  }

  /** Processes that wait with a skeleton. */
  get built(): number {
    return this.#standbys.filter((standby) => standby.isReady && standby.skeleton !== null).length;
  }

  /** What they have built. */
  get skeletons(): readonly Skeleton[] {
    return this.#standbys.flatMap(({ isReady, skeleton }) =>
      isReady && skeleton !== null ? [skeleton] : [],
    );
  }

  /** Begins to fill the reserve and keeps it full. */
  start(): void {
    this.#filling = this.#keepFull();
  }

  /**
   * Takes a process out of the reserve, one with the wanted skeleton before a general one and the readiest of each
   * first, or starts one. What holds the skeleton of another model stays.
   */
  readonly launch: LaunchEngine = (observer, wanted) => {
    const usable = this.#standbys.filter((one) => one.failure === null && one.isRunning());
    const key = wanted && skeletonKey(wanted);
    const built = usable.filter((one) => one.skeleton !== null && one.key === key);
    const general = usable.filter((one) => one.skeleton === null);
    const readiest = (some: readonly Standby[]) => some.find((one) => one.isReady) ?? some[0];
    const standby = readiest(built) ?? readiest(general);
    if (!standby) return this.#options.launch(observer, wanted);
    this.#remove(standby);
    if (standby.isReady) this.#failures = 0;
    this.#changes.notify();
    return standby.handOver(observer);
  };

  /** Models that are likely to be wanted, the likeliest first; the reserve of skeletons follows them. */
  setLikely(skeletons: readonly Skeleton[]): void {
    this.#likely = skeletons.slice(0, this.#options.skeletons);
    const keys = new Set(this.#likely.map(skeletonKey));
    for (const key of this.#refused) if (!keys.has(key)) this.#refused.delete(key);
    this.#changes.notify();
  }

  /** While instances load nothing is started: it would take the processor from them. */
  setLoading(isLoading: boolean): void {
    if (this.#isLoading && !isLoading) this.#pause(limits.standby_refill_ms);
    this.#isLoading = isLoading;
    this.#changes.notify();
  }

  /** Ends the reserve; resolves when its processes are gone. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#changes.notify();
    await Promise.all(this.#standbys.map((standby) => standby.stop()));
    await this.#filling;
  }

  /** One start after the other: they share the processor with running instances. */
  async #keepFull(): Promise<void> {
    while (!this.#stopped) {
      const wait_ms = this.#notBeforeMs - this.#options.clock.monotonicMs();
      const missing = this.#missing();
      if (this.#isLoading || missing === undefined) await this.#changes.wait();
      else if (wait_ms > 0) await this.#sleep(wait_ms);
      else await this.#startOne(missing);
    }
  }

  /** What to start next: a skeleton, null for a general process, undefined for nothing. */
  #missing(): Skeleton | null | undefined {
    if (this.#standbys.filter((one) => one.skeleton === null).length < this.#options.size) return null;
    return this.#likely.find((wanted) => {
      const key = skeletonKey(wanted);
      return !this.#refused.has(key) && !this.#standbys.some((one) => one.key === key);
    });
  }

  /** Makes room for a skeleton where there are too many: those of models that are likely no more go. */
  #endUnlikely(): void {
    const keys = new Set(this.#likely.map(skeletonKey));
    for (const one of this.#standbys.filter((one) => one.skeleton !== null && !keys.has(one.key))) {
      this.#remove(one);
      void one.stop();
    }
  }

  async #sleep(delay_ms: number): Promise<void> {
    const enough = new AbortController();
    await Promise.race([this.#options.clock.sleep(delay_ms, enough.signal), this.#changes.wait()]);
    enough.abort();
  }

  /** Resolves when the process is ready to be taken, taken or gone. */
  async #startOne(skeleton: Skeleton | null): Promise<void> {
    const { launch, engine, clock } = this.#options;
    if (skeleton !== null) this.#endUnlikely();
    const standby = new Standby({
      engine,
      skeleton,
      started_ms: clock.monotonicMs(),
      onEnd: (end) => this.#onEnd(standby, end),
    });
    this.#standbys.push(standby);
    standby.begin(launch);
    if (!(await settlesInTime(standby.settled, clock, limits.engine_hello_ms))) standby.kill();
    if (!standby.isReady) return;
    this.#options.log.info(skeleton ? "standby_built" : "standby_warm", { pid: standby.pid });
    this.#options.onChange();
  }

  #onEnd(standby: Standby, end: EngineEnd): void {
    // One that is not among them was ended because its model is likely no more.
    if (!this.#remove(standby) || this.#stopped) return;
    if (standby.skeleton !== null && !standby.isReady) this.#refused.add(standby.key);
    const longest_ms = limits.standby_back_off_longest_ms;
    // One that waited this long had started well: its end is a new story.
    const waitedWell =
      standby.isReady && this.#options.clock.monotonicMs() - standby.started_ms >= longest_ms;
    this.#failures = waitedWell ? 1 : this.#failures + 1;
    const pause_ms = Math.min(longest_ms, limits.standby_back_off_ms * 2 ** (this.#failures - 1));
    this.#pause(pause_ms);
    const reason = standby.failure ?? end.last_lines.at(-1) ?? "";
    this.#options.log.warn("standby_ended", { pid: standby.pid, end: end.reason, reason, pause_ms });
    if (standby.isReady) this.#options.onChange();
    this.#changes.notify();
  }

  /** False when it had been removed before. */
  #remove(standby: Standby): boolean {
    const at = this.#standbys.indexOf(standby);
    if (at !== -1) this.#standbys.splice(at, 1);
    return at !== -1;
  }

  #pause(pause_ms: number): void {
    this.#notBeforeMs = Math.max(this.#notBeforeMs, this.#options.clock.monotonicMs() + pause_ms);
  }
}
