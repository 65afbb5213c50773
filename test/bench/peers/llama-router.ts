/**
 * The reference server of the inference library in router mode: one process that starts another per model on demand,
 * as ours does. Built by build-llama-server.mjs.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { eventually } from "../../support/eventually.ts";
import { freePort } from "./free-port.ts";

export interface RouterOptions {
  readonly program: string;
  /** GGUF files by the names that requests use. */
  readonly models: Readonly<Record<string, string>>;
  readonly threads: number;
  readonly context_tokens: number;
}

/** Loading of a big model by a slow peer. */
const unloadedWithinMs = 30_000;

/** Runs on loopback until closed. Its models start unloaded. */
export class LlamaRouter {
  readonly url: string;
  readonly #child: ChildProcess;
  readonly #folder: string;

  private constructor(url: string, child: ChildProcess, folder: string) {
    this.url = url;
    this.#child = child;
    this.#folder = folder;
  }

  /** Throws when it does not answer. */
  static async start({ program, models, threads, context_tokens }: RouterOptions): Promise<LlamaRouter> {
    const folder = mkdtempSync(path.join(tmpdir(), "sllm-router-"));
    for (const [name, gguf] of Object.entries(models)) symlinkSync(gguf, path.join(folder, `${name}.gguf`));
    const port = String(await freePort());
    // One model at a time, one slot, no empty run first: what makes it start fastest.
    const options = [
      ...["--models-dir", folder, "--models-max", "1", "--host", "127.0.0.1", "--port", port],
      ...["--threads", String(threads), "--threads-batch", String(threads)],
      ...["--ctx-size", String(context_tokens), "--parallel", "1", "--no-warmup", "--offline", "--no-ui"],
    ];
    const child = spawn(program, options, { stdio: "ignore" });
    const router = new LlamaRouter(`http://127.0.0.1:${port}`, child, folder);
    try {
      await eventually("the router lists its models", async () => {
        if (child.exitCode !== null) throw new Error(`llama-server ended with ${child.exitCode}`);
        const listed = await router.#statuses();
        return Object.keys(models).every((name) => listed.has(name));
      });
    } catch (error) {
      await router.close();
      throw error;
    }
    return router;
  }

  /** Ends the model's process and waits until the router knows; nothing if there is none. */
  async unload(model: string): Promise<void> {
    if ((await this.#statuses()).get(model) === "unloaded") return;
    const body = JSON.stringify({ model });
    const response = await fetch(`${this.url}/models/unload`, { method: "POST", body });
    if (!response.ok) throw new Error(`unload: ${response.status} ${await response.text()}`);
    await eventually(
      `the router has unloaded ${model}`,
      async () => (await this.#statuses()).get(model) === "unloaded",
      unloadedWithinMs,
    );
  }

  async #statuses(): Promise<Map<string, string>> {
    const response = await fetch(`${this.url}/models`);
    const { data } = (await response.json()) as { data: { id: string; status: { value: string } }[] };
    return new Map(data.map(({ id, status }) => [id, status.value]));
  }

  /** Ends the router and its models. Safe to call more than once. */
  async close(): Promise<void> {
    const child = this.#child;
    if (child.exitCode === null && child.signalCode === null) {
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGTERM");
      await ended;
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
