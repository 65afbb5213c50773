/**
 * A child process that prints one ready line and then serves: started again with a growing pause when it crashes,
 * stopped by SIGTERM and, if it does not listen, by SIGKILL. It runs in a session of its own, so that Ctrl-C reaches
 * only us and children end in our order; a pipe on its standard input ends it should we die without a word.
 */
import { z } from "zod";
import { CommandFailure } from "../failure.ts";
import { type Backoff, nextBackoff } from "./backoff.ts";
import { readLines } from "./read-lines.ts";

const readyLine = z.object({ event: z.literal("ready"), role: z.string(), url: z.string() });

/** The embedded database may take 20 s on a slow, busy machine; a start that takes longer hangs. */
const startMsMax = 60_000;
/** Streams end and records are written within this time; see the gateway's and the worker's own shutdown. */
const stopMsMax = 15_000;

export interface ProcessSpec {
  readonly role: "gateway" | "worker";
  readonly command: readonly [string, ...string[]];
  readonly folder: string;
  /** Asked for every start anew: a restarted gateway must take the port of the first. */
  variables(): Record<string, string>;
  /** Every line of its standard error. */
  onLog(line: string): void;
  /** It crashed and will be started again after the pause. */
  onCrash(description: string, delay_ms: number): void;
  onRestart(url: string): void;
}

interface Running {
  readonly child: Bun.Subprocess<"pipe", "pipe", "pipe">;
  readonly started_at_ms: number;
}

export class ManagedProcess {
  readonly #spec: ProcessSpec;
  #running: Running | null = null;
  #isStopping = false;
  #wake: () => void = () => {};

  constructor(spec: ProcessSpec) {
    this.#spec = spec;
  }

  /** Starts it and resolves to its URL. Rejects when it ends or stays silent: a first start is not tried again. */
  async start(): Promise<string> {
    const running = this.#spawn();
    const url = await this.#untilReady(running);
    void this.#keepRunning(running);
    return url;
  }

  /** Ends it and resolves when it is gone. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#wake();
    const child = this.#running?.child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGTERM");
    const killer = setTimeout(() => child.kill("SIGKILL"), stopMsMax);
    await child.exited;
    clearTimeout(killer);
  }

  #spawn(): Running {
    const [program, ...args] = this.#spec.command;
    const child = Bun.spawn([program, ...args], {
      cwd: this.#spec.folder,
      env: this.#spec.variables(),
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
      detached: true,
    });
    this.#running = { child, started_at_ms: performance.now() };
    void readLines(child.stderr, (line) => this.#spec.onLog(line));
    return this.#running;
  }

  async #untilReady({ child }: Running): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const fail = (what: string) =>
      reject(new CommandFailure(`the ${this.#spec.role} ${what}`, { advice: "Its lines above say why." }));
    const timer = setTimeout(() => {
      fail(`was not ready within ${startMsMax / 1000} s`);
      child.kill("SIGKILL");
    }, startMsMax);
    void readLines(child.stdout, (line) => {
      const ready = readyLine.safeParse(parseOrNull(line));
      if (ready.success) resolve(ready.data.url);
      else this.#spec.onLog(line);
    });
    void child.exited.then(() => fail(`ended at its start (${describeExit(child)})`));
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
    }
  }

  async #keepRunning(first: Running): Promise<void> {
    let running = first;
    let backoff: Backoff | null = null;
    for (;;) {
      await running.child.exited;
      if (this.#isStopping) return;
      backoff = nextBackoff(backoff, performance.now() - running.started_at_ms);
      this.#spec.onCrash(describeExit(running.child), backoff.delay_ms);
      await this.#pause(backoff.delay_ms);
      if (this.#isStopping) return;
      running = this.#spawn();
      try {
        this.#spec.onRestart(await this.#untilReady(running));
      } catch (error) {
        if (!(error instanceof CommandFailure)) throw error;
        this.#spec.onLog(error.message); // its exit brings us back to the loop's start
      }
    }
  }

  #pause(delay_ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, delay_ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

function describeExit(child: Bun.Subprocess): string {
  return child.signalCode === null ? `exit status ${child.exitCode}` : `signal ${child.signalCode}`;
}

function parseOrNull(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return null; // not a JSON line, so not the ready line
  }
}
