/**
 * Some gateways on one store in memory and some workers with engines of scripts, all inside the test's process and all
 * reached over HTTP: gateways and workers can be ended and cut off without the price of processes.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createGateway, type Gateway } from "../../gateway/gateway.ts";
import { systemClock } from "../../gateway/system/clock.ts";
import { systemRandom } from "../../gateway/system/random.ts";
import { createHttpWorkerClient } from "../../gateway/workers/http-worker-client.ts";
import { type GatewayConfig, gatewayConfig } from "../../schema/config.ts";
import { eventually } from "./eventually.ts";
import { FleetWorker } from "./fleet-worker.ts";
import { MemoryStateStore } from "./memory-state-store.ts";
import { tokenText } from "./scripted-engine.ts";
import { readSse } from "./sse-client.ts";
import { writeTinyCheckpoint } from "./tiny-checkpoint.ts";

const cluster_token = "cluster-token-of-the-streams";

export interface StreamSceneOptions {
  readonly gateways?: number;
  readonly workers?: number;
  readonly token_ms?: number;
  readonly config?: Partial<GatewayConfig>;
}

interface RunningGateway {
  readonly gateway: Gateway;
  readonly server: Bun.Server<undefined>;
  readonly url: string;
  isCut: boolean;
}

export class StreamScene {
  readonly store = new MemoryStateStore();
  readonly gateways: RunningGateway[] = [];
  readonly workers: FleetWorker[] = [];
  readonly model = "model";
  /** Addresses of workers that are cut off: nothing comes from them or gets there, and no connection breaks. */
  readonly silenced = new Set<string>();
  readonly #folder = mkdtempSync(path.join(tmpdir(), "sllm-streams-"));
  readonly #options: StreamSceneOptions;

  private constructor(options: StreamSceneOptions) {
    this.#options = options;
  }

  /** Everything runs, and every worker has an instance of the model. */
  static async start(options: StreamSceneOptions = {}): Promise<StreamScene> {
    const scene = new StreamScene(options);
    const { gateways = 1, workers = 2 } = options;
    for (let i = 0; i < gateways; i++) await scene.startGateway();
    for (let i = 0; i < workers; i++) scene.startWorker();
    await scene.#deploy(workers);
    return scene;
  }

  async startGateway(): Promise<RunningGateway> {
    const quiet = { info: () => {}, warn: () => {}, error: () => {} };
    const running = { isCut: false } as { isCut: boolean } & Partial<RunningGateway>;
    const gateway = createGateway({
      config: { ...gatewayConfig.parse({}), park_ms: 0, ...this.#options.config },
      cluster_token,
      store: this.store,
      workers: createHttpWorkerClient({
        cluster_token,
        fetch: (url, init) =>
          running.isCut ? Promise.reject(new TypeError("cut off")) : this.#fetchFrom(url, init),
      }),
      clock: systemClock,
      random: systemRandom,
      log: quiet,
      version: "0.0.0-test",
    });
    await gateway.start();
    const serve = (request: Request) => gateway.app.fetch(request);
    const server = Bun.serve({ hostname: "127.0.0.1", port: 0, idleTimeout: 0, fetch: serve });
    const started = Object.assign(running, { gateway, server, url: server.url.origin });
    this.gateways.push(started);
    return started;
  }

  /** As the network between gateways and workers does it. */
  async #fetchFrom(url: string, init: RequestInit): Promise<Response> {
    const { origin } = new URL(url);
    const nothing = () =>
      new Promise<never>((_, reject) =>
        init.signal?.addEventListener("abort", () => reject(init.signal?.reason)),
      );
    if (this.silenced.has(origin)) return await nothing();
    const response = await fetch(url, init);
    const lossy = new TransformStream<Uint8Array, Uint8Array>({
      transform: (bytes, out) => (this.silenced.has(origin) ? nothing() : out.enqueue(bytes)),
    });
    return new Response(response.body?.pipeThrough(lossy), response);
  }

  /** Its clients' connections break, it reaches no worker any more, and it renews nothing. */
  async killGateway(index: number): Promise<void> {
    const running = this.gateways[index];
    if (running === undefined) throw new Error(`there is no gateway ${index}`);
    running.isCut = true;
    await running.server.stop(true);
    await running.gateway.stop();
  }

  startWorker(): FleetWorker {
    const worker = FleetWorker.start({
      gateways: this.gateways.map(({ url }) => url),
      cluster_token,
      store: this.#folder,
      memory_bytes: 2 ** 40,
      token_ms: this.#options.token_ms ?? 5,
    });
    this.workers.push(worker);
    return worker;
  }

  urlOf(index: number): string {
    const url = this.gateways[index]?.url;
    if (url === undefined) throw new Error(`there is no gateway ${index}`);
    return url;
  }

  post(
    gateway: number,
    route: string,
    body: unknown,
    headers: Record<string, string> = {},
  ): Promise<Response> {
    return fetch(`${this.urlOf(gateway)}${route}`, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: JSON.stringify(body),
    });
  }

  /** A streamed completion of so many tokens. */
  complete(gateway: number, max_tokens: number, headers: Record<string, string> = {}): Promise<Response> {
    const body = { model: this.model, prompt: "Hi", stream: true, max_tokens };
    return this.post(gateway, "/v1/completions", body, headers);
  }

  async close(): Promise<void> {
    for (const { gateway, server, isCut } of this.gateways) {
      if (isCut) continue;
      await server.stop(true);
      await gateway.stop();
    }
    await Promise.all(this.workers.map((worker) => worker.kill()));
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #deploy(instances: number): Promise<void> {
    const { manifest } = writeTinyCheckpoint(this.#folder, { fill: 1 });
    const settings = { slots: 64, context_tokens: 4096, min_instances: instances };
    const response = await this.post(0, "/admin/v1/models", { id: this.model, manifest, settings });
    if (!response.ok) throw new Error(`deploy: ${response.status} ${await response.text()}`);
    await eventually("an instance runs on every worker", async () => {
      const ready = (await this.store.snapshot()).instances.filter((row) => row.state === "ready");
      return ready.length === instances;
    });
  }
}

/** What a client has of a stream so far. */
export interface Heard {
  text: string;
  id: string | null;
  isDone: boolean;
  error: string | null;
}

/** Reads a completion's events into `heard`, to its end or until the connection breaks. `onToken` hears each. */
export async function hear(response: Response, heard: Heard, onToken = () => {}): Promise<Heard> {
  try {
    for await (const event of readSse(response)) {
      if (event.kind === "comment") continue;
      heard.id = event.id ?? heard.id;
      if (event.data === "[DONE]") heard.isDone = true;
      else {
        const chunk = JSON.parse(event.data);
        heard.error ??= chunk.error?.code ?? null;
        const piece: string = chunk.choices?.[0]?.text ?? "";
        heard.text += piece;
        if (piece !== "") onToken();
      }
    }
  } catch {
    // A broken connection is what such a test is about: what was heard stands.
  }
  return heard;
}

export const nothingHeard = (): Heard => ({ text: "", id: null, isDone: false, error: null });

/** Text of a whole completion of so many tokens. */
export const wholeText = (tokens: number): string =>
  Array.from({ length: tokens }, (_, i) => tokenText(i)).join("");
