/**
 * Engine processes in reserve: started ahead, with everything loaded that no model decides. A load takes one, or
 * starts its own process when there is none; the reserve is filled again when no load wants the processor.
 */
import type { EngineMessage, engineKinds } from "../../schema/cluster/engine.ts";
import { limits } from "../../schema/limits.ts";
import { Changes } from "../changes.ts";
import type { Clock, Log } from "../ports.ts";
import type { EngineEnd, EngineHandle, EngineObserver, LaunchEngine } from "./engine-process.ts";

export interface StandbyPoolOptions {
  /** How many wait at most; 0 turns the reserve off. */
  readonly size: number;
  readonly launch: LaunchEngine;
  readonly engine: (typeof engineKinds)[number];
  readonly clock: Clock;
  readonly log: Log;
}

/** Nothing starts before `start`; `stop` is the end. */
export class StandbyPool {
  readonly #options: StandbyPoolOptions;
  readonly #standbys: Standby[] = [];
  readonly #changes = new Changes();
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
    return this.#standbys.filter((standby) => standby.isWarm).length;
  }

  /** Begins to fill the reserve and keeps it full. */
  start(): void {
    this.#filling = this.#keepFull();
  }

  /** Takes a process out of the reserve, the readiest first, or starts one. */
  readonly launch: LaunchEngine = (observer) => {
    const usable = this.#standbys.filter((one) => one.failure === null && one.isRunning());
    const standby = usable.find((one) => one.isWarm) ?? usable[0];
    if (!standby) return this.#options.launch(observer);
    this.#remove(standby);
    if (standby.isWarm) this.#failures = 0;
    this.#changes.notify();
    return standby.handOver(observer);
  };

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
      const { size, clock } = this.#options;
      const wait_ms = this.#notBeforeMs - clock.monotonicMs();
      if (this.#isLoading || this.#standbys.length >= size) await this.#changes.wait();
      else if (wait_ms > 0) await this.#sleep(wait_ms);
      else await this.#startOne();
    }
  }

  async #sleep(delay_ms: number): Promise<void> {
    const enough = new AbortController();
    await Promise.race([this.#options.clock.sleep(delay_ms, enough.signal), this.#changes.wait()]);
    enough.abort();
  }

  /** Resolves when the process is warm, taken or gone. */
  async #startOne(): Promise<void> {
    const { launch, engine, clock } = this.#options;
    const standby = new Standby(engine, clock.monotonicMs(), (end) => this.#onEnd(standby, end));
    this.#standbys.push(standby);
    standby.begin(launch);
    const settled = new AbortController();
    const late = clock.sleep(limits.engine_hello_ms, settled.signal).then(() => "late");
    if ((await Promise.race([late, standby.settled])) === "late") standby.kill();
    settled.abort();
    if (standby.isWarm) this.#options.log.info("standby_warm", { pid: standby.pid });
  }

  #onEnd(standby: Standby, end: EngineEnd): void {
    this.#remove(standby);
    if (this.#stopped) return;
    const longest_ms = limits.standby_back_off_longest_ms;
    // One that waited this long had started well: its end is a new story.
    const waitedWell = standby.isWarm && this.#options.clock.monotonicMs() - standby.started_ms >= longest_ms;
    this.#failures = waitedWell ? 1 : this.#failures + 1;
    const pause_ms = Math.min(longest_ms, limits.standby_back_off_ms * 2 ** (this.#failures - 1));
    this.#pause(pause_ms);
    const reason = standby.failure ?? end.last_lines.at(-1) ?? "";
    this.#options.log.warn("standby_ended", { pid: standby.pid, end: end.reason, reason, pause_ms });
    this.#changes.notify();
  }

  #remove(standby: Standby): void {
    const at = this.#standbys.indexOf(standby);
    if (at !== -1) this.#standbys.splice(at, 1);
  }

  #pause(pause_ms: number): void {
    this.#notBeforeMs = Math.max(this.#notBeforeMs, this.#options.clock.monotonicMs() + pause_ms);
  }
}

/** One process in reserve. From its hand-over on everything it says goes to its instance. */
class Standby implements EngineObserver {
  readonly started_ms: number;
  readonly #engine: (typeof engineKinds)[number];
  readonly #onEnd: (end: EngineEnd) => void;
  readonly #settled = Promise.withResolvers<void>();
  #handle: EngineHandle | null = null;
  #hello: EngineMessage | null = null;
  #taker: EngineObserver | null = null;
  isWarm = false;
  /** Why it could not be made ready, in its own words; it is about to end and of no use. */
  failure: string | null = null;

  constructor(engine: (typeof engineKinds)[number], started_ms: number, onEnd: (end: EngineEnd) => void) {
    this.started_ms = started_ms;
    this.#engine = engine;
    this.#onEnd = onEnd;
  }

  get pid(): number | null {
    return this.#handle?.pid ?? null;
  }

  isRunning(): boolean {
    return this.#handle?.isRunning() ?? false;
  }

  /** Resolves when it is warm, handed over or gone. */
  get settled(): Promise<void> {
    return this.#settled.promise;
  }

  begin(launch: LaunchEngine): void {
    this.#handle = launch(this);
    this.#handle.send({ op: "warm", engine: this.#engine });
  }

  handOver(observer: EngineObserver): EngineHandle {
    if (!this.#handle) throw new Error("a process that was not started cannot be handed over");
    this.#taker = observer;
    if (this.#hello) observer.onMessage(this.#hello);
    this.#settled.resolve();
    return this.#handle;
  }

  async stop(): Promise<void> {
    await this.#handle?.stop();
  }

  kill(): void {
    this.#handle?.kill();
  }

  onMessage(message: EngineMessage): void {
    if (this.#taker) this.#taker.onMessage(message);
    else if (message.type === "hello") this.#hello = message;
    else if (message.type === "failed") this.failure = message.error.message;
    else if (message.type === "warm") {
      this.isWarm = true;
      this.#settled.resolve();
    }
  }

  onEnd(end: EngineEnd): void {
    if (this.#taker) this.#taker.onEnd(end);
    else this.#onEnd(end);
    this.isWarm = false;
    this.#settled.resolve();
  }
}
