/** The yardstick: a process with a loop over llama_decode and nothing around it; see native/test/bench_decode.cc. */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import path from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { engineLibrariesPath } from "../../support/native.ts";
import { repositoryRoot } from "../../support/processes.ts";
import type { Speed, Subject } from "./subject.ts";

const program = path.join(repositoryRoot, "native/build/sllm_bench_decode");

export interface BareOptions {
  readonly gguf: string;
  readonly threads: number;
  readonly streams: number;
  readonly context_tokens: number;
  /** Weights in the layout that libllama likes best instead of the file's. */
  readonly repacked: boolean;
}

export class BareLoop implements Subject {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: AsyncIterator<string>;

  private constructor(child: ChildProcessByStdio<Writable, Readable, null>) {
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  }

  static async start({ gguf, threads, streams, context_tokens, repacked }: BareOptions): Promise<BareLoop> {
    const numbers = [threads, streams, context_tokens].map(String);
    const child = spawn(program, [gguf, ...numbers, repacked ? "repacked" : "plain"], {
      stdio: ["pipe", "pipe", "inherit"],
      env: { ...process.env, SLLM_ENGINE_LIBRARIES: engineLibrariesPath },
    });
    const loop = new BareLoop(child);
    await loop.#next();
    return loop;
  }

  prefill(text: string): Promise<Speed> {
    return this.#ask(`prefill ${text}`);
  }

  decode(streams: number, tokens: number, text: string): Promise<Speed> {
    return this.#ask(`decode ${streams} ${tokens} ${text}`);
  }

  async #ask(command: string): Promise<Speed> {
    this.#child.stdin.write(`${command}\n`);
    return JSON.parse(await this.#next()) as Speed;
  }

  async #next(): Promise<string> {
    const line = await this.#lines.next();
    if (line.done) throw new Error("sllm_bench_decode ended");
    return line.value;
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = new Promise((resolve) => this.#child.once("exit", resolve));
    this.#child.stdin.end();
    await ended;
  }
}
