/** Our engine process, led over its private channel as a worker leads it; its host copy belongs to this process. */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import type { EngineCommand, EngineMessage } from "../../../schema/cluster/engine.ts";
import { engineLibrariesPath, nativeLibraryPath } from "../../support/native.ts";
import { repositoryRoot } from "../../support/processes.ts";
import type { Case } from "../load/cases.ts";
import { type Speed, type Subject, steadySpeed } from "./subject.ts";

const script = path.join(repositoryRoot, "worker/engine/main.ts");

export interface OurOptions {
  readonly of: Case;
  /** Path of the host copy of the weights. */
  readonly weights_path: string;
  readonly threads: number;
  readonly streams: number;
  readonly context_tokens: number;
  /** As with `worker.weights_layout: repacked`. */
  readonly repacked: boolean;
}

interface Answer {
  readonly times: number[];
  prompt_tokens: number;
  readonly end: ReturnType<typeof Promise.withResolvers<void>>;
}

export class OurEngine implements Subject {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #answers = new Map<number, Answer>();
  readonly #ready = Promise.withResolvers<void>();
  #requests = 0;

  private constructor() {
    this.#child = spawn(process.execPath, [script], {
      stdio: ["pipe", "pipe", "inherit"],
      env: {
        ...process.env,
        SLLM_NATIVE_LIBRARY: nativeLibraryPath,
        SLLM_ENGINE_LIBRARIES: engineLibrariesPath,
      },
    });
    createInterface({ input: this.#child.stdout }).on("line", (line) =>
      this.#hear(JSON.parse(line) as EngineMessage, performance.now()),
    );
    this.#child.once("exit", (status) => {
      const error = new Error(`the engine process ended with ${status}`);
      this.#ready.reject(error);
      for (const { end } of this.#answers.values()) end.reject(error);
    });
  }

  static async start(options: OurOptions): Promise<OurEngine> {
    const { of, weights_path, threads, streams, context_tokens, repacked } = options;
    const engine = new OurEngine();
    const { manifest, header } = of;
    engine.#send({
      ...{ op: "load", engine: "llama", header_path: header, weights_path },
      ...{ weights_bytes: manifest.weights.bytes, context_tokens, slots: streams, threads, repacked },
    });
    await engine.#ready.promise;
    return engine;
  }

  async prefill(text: string): Promise<Speed> {
    const started = performance.now();
    const { times, prompt_tokens } = await this.#answer(text, 1);
    return { tokens: prompt_tokens, ms: (times[0] ?? Number.NaN) - started };
  }

  async decode(streams: number, tokens: number, text: string): Promise<Speed> {
    const answers = await Promise.all(Array.from({ length: streams }, () => this.#answer(text, tokens)));
    return steadySpeed(answers.map(({ times }) => times));
  }

  /** Processor time of the JavaScript main thread so far. */
  mainThreadMs(): number {
    const { pid } = this.#child;
    const [ran_ns] = readFileSync(`/proc/${pid}/task/${pid}/schedstat`, "utf8").split(" ");
    return Number(ran_ns) / 1e6;
  }

  async #answer(text: string, max_tokens: number): Promise<Answer> {
    const request = ++this.#requests;
    const answer: Answer = { times: [], prompt_tokens: 0, end: Promise.withResolvers() };
    this.#answers.set(request, answer);
    this.#send({
      ...{ op: "generate", request, prompt: { kind: "text", text }, stop: [], max_tokens, ignore_eos: true },
      sampling: { temperature: 0, top_k: 0, top_p: 1, min_p: 0, seed: "1" },
    });
    await answer.end.promise;
    this.#answers.delete(request);
    return answer;
  }

  #send(command: EngineCommand): void {
    this.#child.stdin.write(`${JSON.stringify(command)}\n`);
  }

  #hear(message: EngineMessage, at_ms: number): void {
    if (message.type === "ready") this.#ready.resolve();
    if (!("request" in message)) return;
    const answer = this.#answers.get(message.request);
    if (message.type === "tokens") for (const _ of message.tokens) answer?.times.push(at_ms);
    else if (message.type === "error") answer?.end.reject(new Error(message.error.message));
    else if (message.type === "done" && answer !== undefined) {
      answer.prompt_tokens = message.prompt_tokens;
      answer.end.resolve();
    }
  }

  async close(): Promise<void> {
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    this.#send({ op: "exit" });
    await ended;
  }
}
