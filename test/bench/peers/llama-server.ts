/** The reference server of the inference library with one model, as a peer in generation. Built by build-llama-server.mjs. */
import { type ChildProcess, spawn } from "node:child_process";
import { eventually } from "../../support/eventually.ts";
import { freePort } from "./free-port.ts";

export interface ServerOptions {
  readonly program: string;
  readonly gguf: string;
  readonly threads: number;
  readonly streams: number;
  readonly context_tokens: number;
  /** Weights in the layout that libllama likes best instead of the file's. */
  readonly repacked: boolean;
}

/** Repacking a model by one thread takes a while. */
const readyWithinMs = 60_000;

/** Runs on loopback until closed. */
export class LlamaServer {
  readonly url: string;
  readonly #child: ChildProcess;

  private constructor(url: string, child: ChildProcess) {
    this.url = url;
    this.#child = child;
  }

  /** Throws when it does not get ready. */
  static async start(options: ServerOptions): Promise<LlamaServer> {
    const { program, gguf, threads, streams, context_tokens, repacked } = options;
    const port = String(await freePort());
    const args = [
      ...["--model", gguf, "--host", "127.0.0.1", "--port", port, "--offline", "--no-ui"],
      ...["--threads", String(threads), "--threads-batch", String(threads)],
      ...["--ctx-size", String(streams * context_tokens), "--parallel", String(streams)],
      ...(repacked ? [] : ["--no-repack"]),
    ];
    const child = spawn(program, args, { stdio: "ignore" });
    const server = new LlamaServer(`http://127.0.0.1:${port}`, child);
    try {
      const isReady = async () => {
        if (child.exitCode !== null) throw new Error(`llama-server ended with ${child.exitCode}`);
        return (await fetch(`${server.url}/health`).catch(() => null))?.ok === true;
      };
      await eventually("llama-server is ready", isReady, readyWithinMs);
    } catch (error) {
      await server.close();
      throw error;
    }
    return server;
  }

  /** Safe to call more than once. */
  async close(): Promise<void> {
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGTERM");
    await ended;
  }
}
