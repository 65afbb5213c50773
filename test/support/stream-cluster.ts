/**
 * Gateways on one Postgres and workers with the sample model, its tools and some adapters, all of them real processes, and the disturbances that a
 * test makes among them: processes killed, stopped and started again.
 */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { adminInstanceList, adminWorkerList } from "../../schema/api/admin.ts";
import { workerStatus } from "../../schema/cluster/status.ts";
import { convertAdapter, convertGguf } from "../../worker/checkpoints/import.ts";
import { writeAdapter } from "../models/generator/adapter.ts";
import { writeToolModel } from "../models/generator/tool-model.ts";
import { clusterToken } from "./cluster.ts";
import { eventually } from "./eventually.ts";
import { createDatabase, type PostgresServer, startPostgres } from "./postgres.ts";
import { type RunningProcess, startProcess } from "./processes.ts";
import { exactModel, looseAdapters, looseModel } from "./stream-kinds.ts";

/** Instances and workers are back within this, whatever was killed. */
const recovery_ms = 60_000;
/** More than the model was trained for: its text need not be good, only long enough. */
const context_tokens = 1_024;
/** For how long a process is stopped: longer than its silence is put up with. */
const stopped_ms = 4_500;

export class StreamCluster {
  readonly gateways: RunningProcess[] = [];
  readonly workers: RunningProcess[] = [];
  readonly #folder = mkdtempSync(path.join(tmpdir(), "sllm-stream-cluster-"));
  readonly #server: PostgresServer;
  readonly #made: { readonly url: string; readonly drop: () => Promise<void> };

  private constructor(server: PostgresServer, made: { url: string; drop: () => Promise<void> }) {
    this.#server = server;
    this.#made = made;
  }

  /** Every worker has an instance of both models that is ready. */
  static async start(gateways: number, workers: number): Promise<StreamCluster> {
    const server = await startPostgres();
    const cluster = new StreamCluster(server, await createDatabase(server));
    for (let i = 0; i < gateways; i++) cluster.gateways.push(await cluster.#startGateway("0"));
    const started = Array.from({ length: workers }, (_, i) => cluster.#startWorker(i));
    cluster.workers.push(...(await Promise.all(started)));
    await cluster.#deploy();
    return cluster;
  }

  get urls(): string[] {
    return this.gateways.map(({ url }) => url);
  }

  async close(): Promise<void> {
    await Promise.all([...this.workers, ...this.gateways].map((one) => one.stop()));
    await this.#made.drop();
    await this.#server.stop();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** As many instances of both models as there are workers are ready, and all workers. */
  async recovered(): Promise<void> {
    const isReady = async () => {
      const { length } = this.workers;
      const instances = (await this.#instances(0)).filter(({ state }) => state === "ready");
      const counts = [exactModel, looseModel].map(
        (id) => instances.filter(({ model_id }) => model_id === id).length,
      );
      const response = await fetch(`${this.urls[0]}/admin/v1/workers`);
      const { data } = adminWorkerList.parse(await response.json());
      const workers = data.filter(({ state }) => state === "ready");
      return workers.length === length && counts.every((count) => count >= length);
    };
    try {
      await eventually("instances and workers are ready", isReady, recovery_ms);
    } catch (cause) {
      throw new Error(`the cluster did not recover:\n${await this.#troubles()}`, { cause });
    }
  }

  /** Why instances have failed, the last ones. */
  async failures(): Promise<string[]> {
    const failed = (await this.#instances(1_000)).filter(({ state }) => state === "failed");
    return failed.map(({ error }) => `${error?.code}: ${error?.message}`);
  }

  async #instances(ended: number) {
    const response = await fetch(`${this.urls[0]}/admin/v1/instances?ended=${ended}`);
    return adminInstanceList.parse(await response.json()).data;
  }

  async #troubles(): Promise<string> {
    const own = async (i: number) => JSON.stringify((await this.#status(i)).instances);
    const all = await Promise.allSettled(this.workers.map((_, i) => own(i)));
    const workers = all.map((one) => (one.status === "fulfilled" ? one.value : String(one.reason)));
    const logs = this.gateways.map((gateway) => gateway.log().split("\n").slice(-100).join("\n"));
    return [...workers, ...(await this.failures()).slice(0, 20), ...logs].join("\n");
  }

  async killEngine(worker: number): Promise<void> {
    for (const pid of await this.#enginePids(worker)) process.kill(pid, "SIGKILL");
  }

  async stopEngineForAWhile(worker: number): Promise<void> {
    const pids = await this.#enginePids(worker);
    for (const pid of pids) process.kill(pid, "SIGSTOP");
    await Bun.sleep(stopped_ms);
    for (const pid of pids) wake(pid);
  }

  async killWorker(worker: number): Promise<void> {
    const running = this.workers[worker];
    running?.kill("SIGKILL");
    await running?.exited;
    this.workers[worker] = await this.#startWorker(worker);
  }

  async stopWorkerForAWhile(worker: number): Promise<void> {
    const running = this.workers[worker];
    running?.kill("SIGSTOP");
    await Bun.sleep(stopped_ms);
    running?.kill("SIGCONT");
  }

  /** SIGTERM, and a new one in its place. Resolves with what the old one ended with. */
  async restartWorker(worker: number): Promise<number | string | undefined> {
    const status = await this.workers[worker]?.stop();
    this.workers[worker] = await this.#startWorker(worker);
    return status;
  }

  /** One more, with so much memory for models; the caller stops it. */
  startSmallWorker(memory_bytes: number): Promise<RunningProcess> {
    return this.#startWorker(this.workers.length, memory_bytes);
  }

  /** As a gateway knows it. */
  async workerIdAt(url: string): Promise<string> {
    return await eventually("the worker is known", async () => {
      const { data } = adminWorkerList.parse(await (await fetch(`${this.urls[0]}/admin/v1/workers`)).json());
      return data.find((worker) => worker.url === url && worker.state === "ready")?.worker_id;
    });
  }

  async killGateway(gateway: number): Promise<void> {
    await this.endGateway(gateway);
    await this.reviveGateway(gateway);
  }

  /** Ends it without a word. */
  async endGateway(gateway: number): Promise<void> {
    const running = this.gateways[gateway];
    running?.kill("SIGKILL");
    await running?.exited;
  }

  async restartGateway(gateway: number): Promise<void> {
    await this.gateways[gateway]?.stop();
    await this.reviveGateway(gateway);
  }

  /** Where it was before: clients and workers know it by that. */
  async reviveGateway(gateway: number): Promise<void> {
    const { port } = new URL(this.urls[gateway] ?? "");
    this.gateways[gateway] = await this.#startGateway(port);
  }

  #startGateway(port: string): Promise<RunningProcess> {
    return startProcess({
      script: "gateway/main/bun.ts",
      variables: {
        SLLM_CLUSTER_TOKEN: clusterToken,
        SLLM_DATA_DIR: this.#folder,
        SLLM_GATEWAY_DATABASE_URL: this.#made.url,
        SLLM_GATEWAY_PORT: port,
        SLLM_GATEWAY_PARK_MS: "0",
      },
    });
  }

  #startWorker(index: number, memory_bytes = 1024 ** 3): Promise<RunningProcess> {
    const data = path.join(this.#folder, `worker-${index}`);
    const store = path.join(this.#folder, "checkpoints");
    for (const folder of [data, store]) mkdirSync(folder, { recursive: true });
    rmSync(path.join(data, "checkpoints"), { force: true });
    symlinkSync(store, path.join(data, "checkpoints"));
    return startProcess({
      script: "worker/main/bun.ts",
      variables: {
        SLLM_DATA_DIR: data,
        SLLM_CLUSTER_TOKEN: clusterToken,
        SLLM_WORKER_GATEWAYS: this.urls.join(","),
        SLLM_WORKER_THREADS: "1",
        SLLM_WORKER_PREFAULT_BYTES: "0",
        SLLM_WORKER_MEMORY_BYTES: String(memory_bytes),
      },
    });
  }

  async #deploy(): Promise<void> {
    const store_dir = path.join(this.#folder, "checkpoints");
    const source = path.join(this.#folder, "model.gguf");
    await writeToolModel(source, undefined, context_tokens);
    const { manifest } = await convertGguf({ source, store_dir });
    const settings = { slots: 16, context_tokens, min_instances: this.workers.length };
    for (const id of [exactModel, looseModel]) {
      const deterministic = id === exactModel;
      await this.#post("/admin/v1/models", { id, manifest, settings: { ...settings, deterministic } });
    }
    for (const [i, name] of looseAdapters.entries()) {
      const adapter = writeAdapter(path.join(this.#folder, `${name}.gguf`), { seed: i + 1 });
      const { manifest } = await convertAdapter({ source: adapter, store_dir });
      await this.#post("/admin/v1/adapters", { model: looseModel, name, manifest });
    }
    await this.recovered();
  }

  async #post(route: string, body: object): Promise<void> {
    const response = await fetch(`${this.urls[0]}${route}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    if (!response.ok) throw new Error(`${route}: ${response.status} ${await response.text()}`);
  }

  async #status(worker: number) {
    const response = await fetch(`${this.workers[worker]?.url}/v1/status`, {
      headers: { authorization: `Bearer ${clusterToken}` },
    });
    return workerStatus.parse(await response.json());
  }

  async #enginePids(worker: number): Promise<number[]> {
    return (await this.#status(worker)).instances.flatMap(({ pid }) => (pid === null ? [] : [pid]));
  }
}

function wake(pid: number): void {
  try {
    process.kill(pid, "SIGCONT");
  } catch {
    // It was given up and ended meanwhile.
  }
}

/** Numbers from 0 to below 1 that follow from the seed alone. */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}
