/** Leads one engine process over its private channel, the way the worker does. */
import { spawn } from "node:child_process";
import path from "node:path";
import { type EngineCommand, type EngineMessage, engineMessage } from "../../schema/cluster/engine.ts";
import { LineSplitter } from "../../worker/engine/ndjson.ts";
import { eventually } from "./eventually.ts";
import { denoPath, engineLibrariesPath, nativeLibraryPath } from "./native.ts";
import { repositoryRoot } from "./processes.ts";

const script = path.join(repositoryRoot, "worker/engine/main.ts");

export type GenerateCommand = Extract<EngineCommand, { op: "generate" }>;

export class EngineClient {
  readonly messages: EngineMessage[] = [];
  readonly pid: number;
  /** Exit status, or the name of the signal. */
  readonly exited: Promise<number | string>;
  readonly #child;

  constructor(options: { runtime?: "bun" | "deno"; variables?: Record<string, string> } = {}) {
    const [command, args] =
      options.runtime === "deno"
        ? [denoPath, ["run", "--quiet", "--allow-all", script]]
        : [process.execPath, [script]];
    this.#child = spawn(command, args, {
      stdio: ["pipe", "pipe", "ignore"],
      env: {
        PATH: process.env.PATH,
        HOME: process.env.HOME,
        SLLM_NATIVE_LIBRARY: nativeLibraryPath,
        SLLM_ENGINE_LIBRARIES: engineLibrariesPath,
        ...options.variables,
      },
    });
    this.pid = this.#child.pid ?? 0;
    const lines = new LineSplitter();
    this.#child.stdout.on("data", (chunk: Uint8Array) => {
      for (const line of lines.push(chunk)) this.messages.push(engineMessage.parse(JSON.parse(line)));
    });
    this.exited = new Promise((resolve) => {
      this.#child.once("close", (status, signal) => resolve(status ?? signal ?? "unknown"));
    });
  }

  send(command: EngineCommand): void {
    this.sendRaw(`${JSON.stringify(command)}\n`);
  }

  sendRaw(text: string): void {
    this.#child.stdin.write(text);
  }

  /** Closes the engine's input: it shall end. */
  endInput(): void {
    this.#child.stdin.end();
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  loadEcho(context_tokens = 256, slots = 2): void {
    this.send({
      op: "load",
      engine: "echo",
      header_path: "",
      weights_path: "",
      weights_bytes: 0,
      context_tokens,
      slots,
      threads: 1,
    });
  }

  generate(request: number, change: Partial<GenerateCommand> = {}): void {
    this.send({
      op: "generate",
      request,
      prompt: { kind: "text", text: "to be or not " },
      sampling: { temperature: 0, top_k: 0, top_p: 1, min_p: 0, seed: "1" },
      stop: [],
      max_tokens: 20,
      ignore_eos: true,
      ...change,
    });
  }

  /** The messages of one request so far. */
  of(request: number): EngineMessage[] {
    return this.messages.filter((message) => "request" in message && message.request === request);
  }

  /** What the engine says to the last `add_adapter` of a number. */
  async answerAbout(adapter: number) {
    return await eventually(`the engine answers about adapter ${adapter}`, () =>
      this.messages.find(
        (message) =>
          (message.type === "adapter_added" || message.type === "adapter_refused") &&
          message.adapter === adapter,
      ),
    );
  }

  /** Waits for the first message of a type. */
  waitFor<T extends EngineMessage["type"]>(
    type: T,
    request?: number,
  ): Promise<Extract<EngineMessage, { type: T }>> {
    return eventually(`the engine says ${type}`, () => {
      const found = this.messages.find(
        (message) =>
          message.type === type &&
          (request === undefined || ("request" in message && message.request === request)),
      );
      // Found by its type, which is what tells the members of the union apart.
      return found as Extract<EngineMessage, { type: T }> | undefined;
    });
  }
}

/** Text of a request's tokens, what was held back to the end included. */
export function textOf(messages: readonly EngineMessage[]): string {
  return messages
    .map((message) =>
      message.type === "tokens"
        ? message.tokens.map((token) => token.text).join("")
        : message.type === "done"
          ? message.text
          : "",
    )
    .join("");
}

/** What the echo engine answers with `ignore_eos`: the prompt's bytes and a silent end token, again and again. */
export function echoOf(asciiPrompt: string, tokens: number): string {
  const round = [...asciiPrompt, ""];
  return Array.from({ length: tokens }, (_, i) => round[i % round.length]).join("");
}
