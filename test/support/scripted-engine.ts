/** An engine without a process: it takes a worker's commands and answers as an engine does, in its own time. */
import type { EngineCommand } from "../../schema/cluster/engine.ts";
import type { EngineHandle, EngineObserver, LaunchEngine } from "../../worker/instances/engine-process.ts";

export interface ScriptedEngineOptions {
  /** From the load to readiness. */
  readonly load_ms: number;
  /** Between two tokens. */
  readonly token_ms: number;
}

/** Text of the nth token of every answer. */
export const tokenText = (index: number): string => ` t${index}`;

/** Tokens of an answer whose request names no bound. */
const defaultTokens = 4;

/** Launches engines, and counts how the answers of all of them ended. */
export class ScriptedEngines {
  finished = 0;
  cancelled = 0;
  readonly #options: ScriptedEngineOptions;
  readonly #all = new Set<EngineHandle>();
  readonly #frozen = new Set<EngineHandle>();

  constructor(options: ScriptedEngineOptions) {
    this.#options = options;
  }

  readonly launch: LaunchEngine = (observer) => {
    const engine = new ScriptedEngine(observer, this.#options, this);
    this.#all.add(engine);
    return engine;
  };

  /** Ends all engines without a word. */
  killAll(): void {
    for (const engine of this.#all) engine.kill();
    this.#all.clear();
  }

  /** Those that there are say nothing from now on, as a stopped process does. */
  freezeAll(): void {
    for (const engine of this.#all) this.#frozen.add(engine);
  }

  thaw(): void {
    this.#frozen.clear();
  }

  isFrozen(engine: EngineHandle): boolean {
    return this.#frozen.has(engine);
  }
}

class ScriptedEngine implements EngineHandle {
  readonly pid = process.pid;
  readonly hasSkeleton = false;
  readonly #observer: EngineObserver;
  readonly #options: ScriptedEngineOptions;
  readonly #counts: ScriptedEngines;
  readonly #answering = new Map<number, Timer>();
  #isOver = false;

  constructor(observer: EngineObserver, options: ScriptedEngineOptions, counts: ScriptedEngines) {
    this.#observer = observer;
    this.#options = options;
    this.#counts = counts;
    queueMicrotask(() => observer.onMessage({ type: "hello", pid: this.pid, abi_version: 1 }));
  }

  isRunning(): boolean {
    return !this.#isOver;
  }

  lastLines(): readonly string[] {
    return [];
  }

  send(command: EngineCommand): void {
    switch (command.op) {
      case "load":
      case "attach":
        this.#after(this.#options.load_ms, () =>
          this.#observer.onMessage({ type: "ready", model_build_ms: 1, weights_wait_ms: 0 }),
        );
        return;
      case "park":
        this.#after(0, () => this.#observer.onMessage({ type: "parked", weights_kept: false }));
        return;
      case "generate":
        this.#answer(command);
        return;
      case "cancel":
        this.#cancel(command.request);
        return;
      default:
        return;
    }
  }

  async stop(): Promise<void> {
    this.kill();
  }

  kill(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    for (const timer of this.#answering.values()) clearTimeout(timer);
    this.#observer.onEnd({ reason: "status 0", last_lines: [] });
  }

  #after(delay_ms: number, act: () => void): Timer {
    return setTimeout(() => {
      if (!this.#isOver) act();
    }, delay_ms);
  }

  /** Goes on after what it had before, as an engine does. */
  #answer(command: Extract<EngineCommand, { op: "generate" }>): void {
    const { request, resume, tell_prompt } = command;
    const tokens = command.max_tokens ?? defaultTokens;
    const prompt = tell_prompt === true ? { prompt: [7] } : {};
    this.#observer.onMessage({ type: "started", request, prompt_tokens: 1, ...prompt });
    const say = (index: number) => {
      if (this.#counts.isFrozen(this)) {
        this.#answering.set(
          request,
          this.#after(this.#options.token_ms, () => say(index)),
        );
        return;
      }
      const token = { token: index, text: tokenText(index) };
      this.#observer.onMessage({ type: "tokens", request, first_index: index, tokens: [token] });
      if (index + 1 < tokens) {
        this.#answering.set(
          request,
          this.#after(this.#options.token_ms, () => say(index + 1)),
        );
        return;
      }
      this.#answering.delete(request);
      this.#counts.finished += 1;
      const timings = { queue_ms: 0, prefill_ms: 1, decode_ms: tokens * this.#options.token_ms };
      const usage = { prompt_tokens: 1, completion_tokens: tokens };
      this.#observer.onMessage({
        type: "done",
        request,
        finish_reason: "length",
        text: "",
        ...usage,
        timings,
      });
    };
    this.#answering.set(
      request,
      this.#after(this.#options.token_ms, () => say(resume?.output.length ?? 0)),
    );
  }

  #cancel(request: number): void {
    const timer = this.#answering.get(request);
    if (timer === undefined) return;
    clearTimeout(timer);
    this.#answering.delete(request);
    this.#counts.cancelled += 1;
    const error = { code: "cancelled", message: "The request was cancelled." } as const;
    this.#observer.onMessage({ type: "error", request, error });
  }
}
