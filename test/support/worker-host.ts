/** One worker as a real process with its own data folder, spoken to through the gateway's own client. */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { WorkerAddress, WorkerClient } from "../../gateway/ports.ts";
import { createHttpWorkerClient } from "../../gateway/workers/http-worker-client.ts";
import type { GenerateRequest, GenerationEvent } from "../../schema/cluster/generate.ts";
import type { LoadEvent, LoadRequest } from "../../schema/cluster/instances.ts";
import { incarnationHeader } from "../../schema/cluster/protocol.ts";
import { type WorkerStatus, workerStatus } from "../../schema/cluster/status.ts";
import { denoPath } from "./native.ts";
import { type RunningProcess, startProcess } from "./processes.ts";

export const clusterToken = "cluster-token-for-tests";

const runtimes = {
  bun: { script: "worker/main/bun.ts" },
  deno: { script: "worker/main/deno.ts", command: [denoPath, "run", "--quiet", "--allow-all"] },
} as const;

export interface WorkerHostOptions {
  readonly runtime?: keyof typeof runtimes;
  readonly variables?: Readonly<Record<string, string>>;
  /** Serve every model with the echo engine, at this time per token. */
  readonly echo_token_us?: number;
}

let lastId = 0;

/** Hexadecimal text of a length that no other call returns. */
function freshHex(digits: number): string {
  return (++lastId).toString(16).padStart(digits, "0");
}

export class WorkerHost {
  readonly folder: string;
  readonly client: WorkerClient;
  process!: RunningProcess;
  readonly #options: WorkerHostOptions;

  private constructor(options: WorkerHostOptions) {
    this.#options = options;
    this.folder = mkdtempSync(path.join(tmpdir(), "sllm-worker-"));
    mkdirSync(this.store);
    this.client = createHttpWorkerClient({
      fetch: (url, init) => {
        // No gateway has told which process this is: any will do.
        const headers = new Headers(init.headers);
        headers.delete(incarnationHeader);
        return fetch(url, { ...init, headers });
      },
      cluster_token: clusterToken,
    });
  }

  static async start(options: WorkerHostOptions = {}): Promise<WorkerHost> {
    const host = new WorkerHost(options);
    await host.restart();
    return host;
  }

  /** Folder of the checkpoints. */
  get store(): string {
    return path.join(this.folder, "checkpoints");
  }

  get address(): WorkerAddress {
    return { worker_id: "w-0000000000000000", url: this.process.url, incarnation: "" };
  }

  /** Starts the process, again after it was stopped. */
  async restart(): Promise<void> {
    const { runtime = "bun", variables = {}, echo_token_us } = this.#options;
    this.process = await startProcess({
      ...runtimes[runtime],
      variables: {
        SLLM_DATA_DIR: this.folder,
        SLLM_CLUSTER_TOKEN: clusterToken,
        SLLM_WORKER_GATEWAYS: "",
        SLLM_WORKER_THREADS: "1",
        SLLM_WORKER_PREFAULT_BYTES: "0",
        ...(echo_token_us === undefined
          ? {}
          : { SLLM_ENGINE_KIND: "echo", SLLM_ECHO_TOKEN_US: String(echo_token_us) }),
        ...variables,
      },
    });
  }

  loadRequest(checkpoint: string, change: Partial<LoadRequest> = {}): LoadRequest {
    return {
      protocol_version: 1,
      instance_id: `i-${freshHex(16)}`,
      model_id: "test",
      checkpoint,
      device_id: "cpu",
      context_tokens: 256,
      slots: 2,
      ...change,
    };
  }

  /** Starts an instance and returns its id with the last event of its load. */
  async load(
    checkpoint: string,
    change: Partial<LoadRequest> = {},
  ): Promise<{ instance_id: string; last: LoadEvent }> {
    const request = this.loadRequest(checkpoint, change);
    let last: LoadEvent | null = null;
    for await (const event of this.client.load(this.address, request, new AbortController().signal))
      last = event;
    if (!last) throw new Error("the load ended without an event");
    return { instance_id: request.instance_id, last };
  }

  /** Starts an instance that must become ready. */
  async loadReady(checkpoint: string, change: Partial<LoadRequest> = {}): Promise<string> {
    const { instance_id, last } = await this.load(checkpoint, change);
    if (last.type !== "ready") throw new Error(`the load ended with ${JSON.stringify(last)}`);
    return instance_id;
  }

  generateRequest(instance_id: string, change: Partial<GenerateRequest> = {}): GenerateRequest {
    return {
      protocol_version: 1,
      generation_id: freshHex(32),
      epoch: 1,
      instance_id,
      prompt: { kind: "text", text: "to be or not " },
      sampling: { temperature: 0, top_k: 0, top_p: 1, min_p: 0, seed: "1" },
      stop: [],
      max_tokens: 20,
      ignore_eos: true,
      ...change,
    };
  }

  /** Runs a generation to its end and returns its events. */
  async generate(instance_id: string, change: Partial<GenerateRequest> = {}): Promise<GenerationEvent[]> {
    const events: GenerationEvent[] = [];
    const signal = new AbortController().signal;
    const request = this.generateRequest(instance_id, change);
    for await (const event of this.client.generate(this.address, request, signal)) events.push(event);
    return events;
  }

  async status(): Promise<WorkerStatus> {
    const response = await fetch(`${this.process.url}/v1/status`, {
      headers: { authorization: `Bearer ${clusterToken}` },
    });
    return workerStatus.parse(await response.json());
  }

  /** What the worker says of one instance; undefined when it is not there. */
  async instance(instance_id: string): Promise<WorkerStatus["instances"][number] | undefined> {
    return (await this.status()).instances.find((instance) => instance.instance_id === instance_id);
  }

  /** Process id of an instance's engine. */
  async enginePid(instance_id: string): Promise<number> {
    const pid = (await this.instance(instance_id))?.pid;
    if (!pid) throw new Error(`instance ${instance_id} has no process`);
    return pid;
  }

  /** Stops the process and removes the folder. */
  async close(): Promise<void> {
    await this.process?.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Text of a generation. */
export function generatedText(events: readonly GenerationEvent[]): string {
  return events
    .map((event) => {
      if (event.type === "tokens") return event.tokens.map((token) => token.text).join("");
      return event.type === "done" ? event.text : "";
    })
    .join("");
}
