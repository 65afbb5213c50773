/** One engine process as its supervisor sees it: typed commands in, checked messages out, last words kept. */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { type EngineCommand, type EngineMessage, engineMessage } from "../../schema/cluster/engine.ts";
import { limits } from "../../schema/limits.ts";
import { LineSplitter } from "../engine/ndjson.ts";

/** Longest line of an engine's log that is kept. */
const logLineChars = 1_000;

export interface EngineEnd {
  /** How it ended, e.g. "status 1" or "signal SIGKILL". */
  readonly reason: string;
  /** The last lines of its log, oldest first. */
  readonly last_lines: readonly string[];
}

export interface EngineObserver {
  onMessage(message: EngineMessage): void;
  /** Called exactly once, after the last message; also when the process could not be started. */
  onEnd(end: EngineEnd): void;
}

export interface EngineHandle {
  /** null when the process could not be started. */
  readonly pid: number | null;
  /** Whether the skeleton that was wanted is built, or being built, and only weights are missing. */
  readonly hasSkeleton: boolean;
  /** Whether the system still runs it, asked now: news of an end may still be on its way to the observer. */
  isRunning(): boolean;
  /** The last lines of its log so far, oldest first. */
  lastLines(): readonly string[];
  send(command: EngineCommand): void;
  /** Asks it to leave and kills it after `engine_exit_ms`. Resolves when it is gone; may be called again. */
  stop(): Promise<void>;
  /** Ends it at once. */
  kill(): void;
}

/** Everything of a model but its weights: what an engine process can build ahead. */
export type Skeleton = Extract<EngineCommand, { op: "build" }>;

/** Starts an engine process; failures come through the observer. `wanted` is what it will be asked to build. */
export type LaunchEngine = (observer: EngineObserver, wanted?: Skeleton) => EngineHandle;

export interface EngineCommandLine {
  readonly command: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/** A launcher that spawns real processes. */
export function engineLauncher(line: EngineCommandLine): LaunchEngine {
  return (observer) => new EngineProcess(line, observer);
}

class EngineProcess implements EngineHandle {
  readonly hasSkeleton = false;
  readonly #child: ChildProcess;
  readonly #observer: EngineObserver;
  readonly #ended = Promise.withResolvers<void>();
  readonly #lastLines: string[] = [];
  #log = new LineSplitter();
  #finished = false;
  #stopping = false;

  constructor(line: EngineCommandLine, observer: EngineObserver) {
    this.#observer = observer;
    this.#child = spawn(line.command, [...line.args], { env: line.env, stdio: ["pipe", "pipe", "pipe"] });
    this.#watch();
  }

  get pid(): number | null {
    return this.#child.pid ?? null;
  }

  isRunning(): boolean {
    if (this.#finished || this.pid === null) return false;
    try {
      // The state follows the name, which stands in parentheses: Z and X have ended.
      return !/\) [ZX] /.test(readFileSync(`/proc/${this.pid}/stat`, "utf8"));
    } catch {
      // No such process any more.
      return false;
    }
  }

  lastLines(): readonly string[] {
    return this.#lastLines;
  }

  send(command: EngineCommand): void {
    const input = this.#child.stdin;
    if (input?.writable) input.write(`${JSON.stringify(command)}\n`);
  }

  async stop(): Promise<void> {
    if (!this.#stopping) {
      this.#stopping = true;
      this.#child.stdin?.end();
      const timer = setTimeout(() => this.kill(), limits.engine_exit_ms);
      void this.#ended.promise.then(() => clearTimeout(timer));
    }
    await this.#ended.promise;
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  #watch(): void {
    const child = this.#child;
    let end: string | null = null;
    child.stdout?.on("data", this.#messageReader());
    child.stderr?.on("data", (chunk: Uint8Array) => this.#keepLines(chunk));
    // A pipe that breaks with the process below it; its end is reported by "close".
    for (const pipe of [child.stdin, child.stdout, child.stderr]) {
      pipe?.on("error", (error) => this.#keep(`pipe: ${error.message}`));
    }
    child.on("error", (error) => {
      end ??= error.message;
      if (child.pid === undefined) this.#finish(end);
    });
    child.on("exit", (status, signal) => {
      end = status === null ? `signal ${signal}` : `status ${status}`;
    });
    // After "exit" the pipes may still hold messages; "close" comes when they are read.
    child.on("close", () => this.#finish(end ?? "unknown status"));
  }

  /** An engine that speaks another language cannot be led: it is killed, and its end explains itself by the log. */
  #messageReader(): (chunk: Uint8Array) => void {
    const lines = new LineSplitter();
    return (chunk) => {
      try {
        for (const line of lines.push(chunk)) this.#observer.onMessage(engineMessage.parse(JSON.parse(line)));
      } catch (error) {
        this.#keep(`unreadable message from the engine: ${error instanceof Error ? error.message : error}`);
        this.kill();
      }
    };
  }

  #keepLines(chunk: Uint8Array): void {
    try {
      for (const line of this.#log.push(chunk)) this.#keep(line);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      // A log without line ends is not worth more memory.
      this.#log = new LineSplitter();
    }
  }

  #keep(line: string): void {
    this.#lastLines.push(line.slice(0, logLineChars));
    if (this.#lastLines.length > limits.engine_log_lines) this.#lastLines.shift();
  }

  #finish(reason: string): void {
    if (this.#finished) return;
    this.#finished = true;
    // An abort's message often has no line end.
    const rest = this.#log.flush();
    if (rest !== "") this.#keep(rest);
    this.#observer.onEnd({ reason, last_lines: this.#lastLines });
    this.#ended.resolve();
  }
}
