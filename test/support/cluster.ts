/**
 * A whole small cluster for tests: gateway with its embedded database and one or more workers, each a real process
 * with its own data folder, all on loopback and free ports.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import {
  type AdminGeneration,
  type AdminInstance,
  type AdminWorker,
  adminGeneration,
  adminInstanceList,
  adminWorkerList,
  type ModelSettings,
} from "../../schema/api/admin.ts";
import type { Manifest } from "../../schema/checkpoint/manifest.ts";
import { type WorkerStatus, workerStatus } from "../../schema/cluster/status.ts";
import { convertGguf } from "../../worker/checkpoints/import.ts";
import { fillDataFolder } from "./embedded-database.ts";
import { eventually } from "./eventually.ts";
import { type RunningProcess, repositoryRoot, startProcess } from "./processes.ts";

export const sampleModelPath = path.join(repositoryRoot, "test/models/tiny-shakespeare-3m-f16.gguf");
export const clusterToken = "cluster-token-for-tests";

export interface ClusterOptions {
  readonly workers?: number;
  readonly gateway?: Readonly<Record<string, string>>;
  readonly worker?: Readonly<Record<string, string>>;
  /** Folder of checkpoints that outlives the cluster; one of its own if left out. */
  readonly checkpoints?: string;
  /** Variables of each worker by its place, for workers that differ. */
  readonly workerVariables?: (index: number) => Readonly<Record<string, string>>;
  /** Program and options of each worker by its place. */
  readonly workerCommands?: (index: number) => readonly string[];
  /** Program and options that run the workers' script; this Bun if left out. */
  readonly workerCommand?: readonly string[];
}

/** Folders outlive restarts of the processes; `close` removes them. */
export class TestCluster {
  readonly folder: string;
  gateway!: RunningProcess;
  workers: RunningProcess[] = [];
  readonly #options: ClusterOptions;

  private constructor(options: ClusterOptions) {
    this.#options = options;
    this.folder = mkdtempSync(path.join(tmpdir(), "sllm-cluster-"));
    mkdirSync(this.storeFolder, { recursive: true });
  }

  /** Starts everything and waits until every worker is registered. */
  static async start(options: ClusterOptions = {}): Promise<TestCluster> {
    const cluster = new TestCluster(options);
    try {
      await cluster.startAll();
    } catch (error) {
      await cluster.close();
      throw error;
    }
    return cluster;
  }

  /** All workers of one cluster share the checkpoints, as hosts with a common disk do. */
  get storeFolder(): string {
    return this.#options.checkpoints ?? path.join(this.folder, "checkpoints");
  }

  get url(): string {
    return this.gateway.url;
  }

  async startAll(): Promise<void> {
    await this.startGateway();
    for (let i = 0; i < (this.#options.workers ?? 1); i++) await this.startWorker(i);
    await this.workersReady();
  }

  async startGateway(port = "0"): Promise<void> {
    const data = path.join(this.folder, "gateway");
    const isEmbedded = this.#options.gateway?.SLLM_GATEWAY_DATABASE_URL === undefined;
    if (isEmbedded && !existsSync(data)) await fillDataFolder(data);
    this.gateway = await startProcess({
      script: "gateway/main/bun.ts",
      variables: {
        SLLM_DATA_DIR: data,
        SLLM_CLUSTER_TOKEN: clusterToken,
        SLLM_GATEWAY_PORT: port,
        ...this.#options.gateway,
      },
    });
  }

  /** Starts workers with variables that were not known before; resolves when all are registered. */
  async addWorkers(count: number, variables: Readonly<Record<string, string>>): Promise<void> {
    const first = this.workers.length;
    for (let i = first; i < first + count; i++) {
      await this.startWorker(i, undefined, variables);
    }
    await eventually("the new workers are registered", async () => {
      const ready = (await this.adminWorkers()).filter((w) => w.state === "ready");
      return ready.length >= first + count;
    });
  }

  async startWorker(
    index: number,
    command = this.#options.workerCommands?.(index) ?? this.#options.workerCommand,
    variables: Readonly<Record<string, string>> = {},
  ): Promise<void> {
    const data = path.join(this.folder, `worker-${index}`);
    mkdirSync(data, { recursive: true });
    const link = path.join(data, "checkpoints");
    rmSync(link, { force: true });
    symlinkSync(this.storeFolder, link);
    this.workers[index] = await startProcess({
      script: "worker/main/bun.ts",
      ...(command === undefined ? {} : { command }),
      variables: {
        SLLM_DATA_DIR: data,
        SLLM_CLUSTER_TOKEN: clusterToken,
        SLLM_WORKER_GATEWAYS: this.gateway.url,
        SLLM_WORKER_THREADS: "1",
        SLLM_WORKER_PREFAULT_BYTES: "0",
        ...this.#options.worker,
        ...this.#options.workerVariables?.(index),
        ...variables,
      },
    });
  }

  async workersReady(): Promise<void> {
    await eventually("all workers are registered", async () => {
      const ready = (await this.adminWorkers()).filter((w) => w.state === "ready");
      return ready.length >= (this.#options.workers ?? 1);
    });
  }

  /** Converts a GGUF file into the shared store. */
  async convert(source: string): Promise<{ digest: string; directory: string; manifest: Manifest }> {
    return convertGguf({ source, store_dir: this.storeFolder });
  }

  /** Converts and deploys; waits until a worker reports the checkpoint. */
  async deploy(id: string, source = sampleModelPath, settings: Partial<ModelSettings> = {}): Promise<void> {
    await this.deployCheckpoint(id, await this.convert(source), settings);
  }

  /** Deploys a checkpoint of the store; waits until a worker reports it. */
  async deployCheckpoint(
    id: string,
    { manifest, digest }: { readonly manifest: Manifest; readonly digest: string },
    settings: Partial<ModelSettings> = {},
  ): Promise<void> {
    const response = await this.post("/admin/v1/models", { id, manifest, settings });
    if (response.status !== 201) throw new Error(`deploy: ${response.status} ${await response.text()}`);
    await eventually("the checkpoint is reported", async () =>
      (await this.adminWorkers()).some((w) => w.placements.some((p) => p.checkpoint === digest)),
    );
  }

  post(route: string, body: unknown, init: RequestInit = {}): Promise<Response> {
    return fetch(`${this.url}${route}`, {
      method: "POST",
      body: JSON.stringify(body),
      ...init,
      headers: { "content-type": "application/json", ...init.headers },
    });
  }

  async adminWorkers(): Promise<AdminWorker[]> {
    const response = await fetch(`${this.url}/admin/v1/workers`);
    return adminWorkerList.parse(await response.json()).data;
  }

  /** Live instances, and `ended` of those that ended last. */
  async adminInstances(ended = 0): Promise<AdminInstance[]> {
    const response = await fetch(`${this.url}/admin/v1/instances?ended=${ended}`);
    return adminInstanceList.parse(await response.json()).data;
  }

  async adminGeneration(generation_id: string): Promise<AdminGeneration> {
    const response = await fetch(`${this.url}/admin/v1/generations/${generation_id}`);
    return adminGeneration.parse(await response.json());
  }

  /** The same once it has ended: rows are written beside the streams, many at a time. */
  endedGeneration(generation_id: string): Promise<AdminGeneration> {
    return eventually("the generation's row has ended", async () => {
      const found = await this.adminGeneration(generation_id);
      return found.state === "queued" || found.state === "running" ? null : found;
    });
  }

  /** What worker `index` says of itself, engine process ids included. */
  async workerStatus(index = 0): Promise<WorkerStatus> {
    const worker = this.workers[index];
    if (!worker) throw new Error(`there is no worker ${index}`);
    const response = await fetch(`${worker.url}/v1/status`, {
      headers: { authorization: `Bearer ${clusterToken}` },
    });
    return workerStatus.parse(await response.json());
  }

  async stopAll(): Promise<void> {
    await Promise.all(this.workers.map((worker) => worker.stop()));
    this.workers = [];
    await this.gateway.stop();
  }

  /** Stops what runs and removes the folders. Safe to call more than once. */
  async close(): Promise<void> {
    await Promise.all(this.workers.map((worker) => worker.stop()));
    this.workers = [];
    await this.gateway?.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
