/** One engine process in reserve, from its start to the moment it is handed over. */
import type { EngineMessage, engineKinds } from "../../schema/cluster/engine.ts";
import type { EngineEnd, EngineHandle, EngineObserver, LaunchEngine, Skeleton } from "./engine-process.ts";
import { skeletonKey } from "./likely-models.ts";

export interface StandbyOptions {
  readonly engine: (typeof engineKinds)[number];
  readonly skeleton: Skeleton | null;
  readonly started_ms: number;
  /** Called when it ends before it was handed over. */
  readonly onEnd: (end: EngineEnd) => void;
}

/** One process in reserve. From its hand-over on everything it says goes to its instance. */
export class Standby implements EngineObserver {
  readonly #options: StandbyOptions;
  readonly #settled = Promise.withResolvers<void>();
  #handle: EngineHandle | null = null;
  #hello: EngineMessage | null = null;
  #taker: EngineObserver | null = null;
  isReady = false;
  /** Why it could not be made ready, in its own words; it is about to end and of no use. */
  failure: string | null = null;

  constructor(options: StandbyOptions) {
    this.#options = options;
  }

  get started_ms(): number {
    return this.#options.started_ms;
  }

  /** What it builds ahead; null when it serves any model. */
  get skeleton(): Skeleton | null {
    return this.#options.skeleton;
  }

  /** Tells skeletons apart; empty without one. */
  get key(): string {
    return this.skeleton === null ? "" : skeletonKey(this.skeleton);
  }

  get pid(): number | null {
    return this.#handle?.pid ?? null;
  }

  isRunning(): boolean {
    return this.#handle?.isRunning() ?? false;
  }

  /** Resolves when it is ready to be taken, handed over or gone. */
  get settled(): Promise<void> {
    return this.#settled.promise;
  }

  begin(launch: LaunchEngine): void {
    this.#handle = launch(this);
    this.#handle.send(this.skeleton ?? { op: "warm", engine: this.#options.engine });
  }

  handOver(observer: EngineObserver): EngineHandle {
    if (!this.#handle) throw new Error("a process that was not started cannot be handed over");
    this.#taker = observer;
    if (this.#hello) observer.onMessage(this.#hello);
    this.#settled.resolve();
    return withSkeleton(this.#handle, this.skeleton !== null);
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
    else if (message.type === "warm" || message.type === "built") {
      this.isReady = true;
      this.#settled.resolve();
    }
  }

  onEnd(end: EngineEnd): void {
    if (this.#taker) this.#taker.onEnd(end);
    else this.#options.onEnd(end);
    this.isReady = false;
    this.#settled.resolve();
  }
}

/** The same process, told apart by what it has built: its own handle does not know. */
function withSkeleton(handle: EngineHandle, hasSkeleton: boolean): EngineHandle {
  return {
    pid: handle.pid,
    hasSkeleton,
    isRunning: () => handle.isRunning(),
    lastLines: () => handle.lastLines(),
    send: (command) => handle.send(command),
    stop: () => handle.stop(),
    kill: () => handle.kill(),
  };
}
