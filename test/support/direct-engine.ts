/** Checkpoints on an engine process of their own, led without worker and gateway: what those must not change. */
import path from "node:path";
import { readCheckpoint } from "../../worker/checkpoints/import.ts";
import { EngineClient, type GenerateCommand, textOf } from "./engine-client.ts";
import { eventually } from "./eventually.ts";
import type { HostCopies } from "./host-copies.ts";

export class DirectEngine {
  readonly client: EngineClient;
  readonly #copies: HostCopies;
  #requests = 0;
  #weights_path = "";

  constructor(copies: HostCopies, options: ConstructorParameters<typeof EngineClient>[0] = {}) {
    this.#copies = copies;
    this.client = new EngineClient(options);
  }

  /** Starts a model from its folder in a store, with 2 slots of 256 tokens. */
  async load(directory: string): Promise<void> {
    const files = await this.filesOf(directory);
    this.#weights_path = files.weights_path;
    this.client.send({ op: "load", engine: "llama", ...files, context_tokens: 256, slots: 2, threads: 1 });
    await this.client.waitFor("ready");
  }

  /** Brings the weights back to the parked engine. */
  async attachAgain(): Promise<void> {
    const readies = () => this.client.messages.filter(({ type }) => type === "ready").length;
    const before = readies();
    this.client.send({ op: "attach", weights_path: this.#weights_path });
    await eventually("the engine is ready again", () => readies() > before);
  }

  /** Adds an adapter from its folder; resolves to the engine's answer. */
  async add(adapter: number, directory: string) {
    this.client.send({ op: "add_adapter", adapter, ...(await this.filesOf(directory)) });
    return await this.client.answerAbout(adapter);
  }

  /** A greedy answer. */
  async answer(change: Partial<GenerateCommand> = {}): Promise<string> {
    const request = ++this.#requests;
    this.client.generate(request, change);
    await this.client.waitFor("done", request);
    return textOf(this.client.of(request));
  }

  /** Header and host copy of a checkpoint, as commands name them. */
  async filesOf(directory: string) {
    const checkpoint = await readCheckpoint(directory);
    return {
      header_path: path.join(checkpoint.directory, "header.gguf"),
      weights_path: await this.#copies.pathOf(checkpoint),
      weights_bytes: checkpoint.manifest.weights.bytes,
    };
  }
}
