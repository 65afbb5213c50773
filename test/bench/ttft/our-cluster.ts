/** One worker and its gateway for starts of one kind, brought back to where such a start begins before each of them. */
import { readFileSync } from "node:fs";
import type { ModelSettings } from "../../../schema/api/admin.ts";
import type { WorkerStatus } from "../../../schema/cluster/status.ts";
import { TestCluster } from "../../support/cluster.ts";
import { eventually } from "../../support/eventually.ts";
import type { Case } from "../load/cases.ts";
import { processMemory } from "../load/memory.ts";
import { ttftMs } from "./first-event.ts";

export interface OurClusterOptions {
  /** Of host copies whose instances have ended; 0: every start is from disk. */
  readonly host_cache_bytes: number;
  /** Idle instances are parked instead of ended. */
  readonly parks: boolean;
  readonly threads: number;
  readonly context_tokens: number;
}

/** Idle time before an instance ends: long enough for a second request, short enough to wait for. */
const keepAliveMs = 1_000;

/** What worker and engine hold outside the arena, and what of the arena, summed over their processes. */
export interface ClusterMemory {
  readonly private_bytes: number;
  readonly arena_bytes: number;
}

/** Serves one model, whose instance ends soon after its last request. */
export class OurCluster {
  readonly #cluster: TestCluster;
  readonly #model: string;
  readonly #parks: boolean;

  private constructor(cluster: TestCluster, model: string, parks: boolean) {
    this.#cluster = cluster;
    this.#model = model;
    this.#parks = parks;
  }

  /** Resolves when the model can be asked for and the arena has been faulted in. */
  static async start(it: Case, options: OurClusterOptions): Promise<OurCluster> {
    // Room for the weights, so that a load finds memory as it does on a worker that has been up for a while.
    const prefault_bytes = it.manifest.weights.bytes + 2 ** 26;
    const cluster = await TestCluster.start({
      checkpoints: it.store,
      gateway: { SLLM_GATEWAY_PARK_MS: options.parks ? "600000" : "0" },
      worker: {
        SLLM_WORKER_THREADS: String(options.threads),
        SLLM_WORKER_HOST_CACHE_BYTES: String(options.host_cache_bytes),
        SLLM_WORKER_PREFAULT_BYTES: String(prefault_bytes),
      },
    });
    const own = new OurCluster(cluster, it.name, options.parks);
    try {
      const settings: Partial<ModelSettings> = { slots: 1, context_tokens: options.context_tokens };
      await cluster.deployCheckpoint(it.name, it, { ...settings, keep_alive_ms: keepAliveMs });
      const worker = cluster.workers[0];
      await eventually("the arena is there", () => worker?.log().includes("arena_prefaulted"), 60_000);
    } catch (error) {
      await own.close();
      throw error;
    }
    return own;
  }

  /** The model is parked where the cluster parks, else gone and its process followed by another that has built it. */
  async atRest(): Promise<void> {
    const cluster = this.#cluster;
    const end = this.#parks ? "parked" : "gone";
    await eventually(`the instance is ${end}`, async () =>
      (await cluster.adminInstances()).every(({ state }) => state === end),
    );
    if (!this.#parks) await this.#reserveIsFull(({ standby_skeletons }) => standby_skeletons > 0);
  }

  /** Its reserve of engine processes is full, which takes a worker some seconds after a load. */
  async #reserveIsFull(also: (status: WorkerStatus) => boolean = () => true): Promise<void> {
    await eventually("the reserve is full", async () => {
      const status = await this.#cluster.workerStatus();
      return status.standby_engines > 0 && status.instances.every(({ pid }) => pid === null) && also(status);
    });
  }

  /** A first request, and at once another one while the instance is there. */
  async coldThenWarm(): Promise<{ readonly cold: number; readonly warm: number }> {
    const cold = await ttftMs(this.#cluster.url, this.#model, "cold");
    return { cold, warm: await ttftMs(this.#cluster.url, this.#model, "warm") };
  }

  /** Growth from a worker at rest to one that has just answered, over the worker and the process that became engine. */
  async memoryOfStart(): Promise<{ readonly before: ClusterMemory; readonly after: ClusterMemory }> {
    await this.#reserveIsFull();
    const pids = this.#workerPids();
    const before = memoryOf(pids);
    await this.coldThenWarm();
    const after = memoryOf(pids);
    const { instances } = await this.#cluster.workerStatus();
    if (!instances.some(({ pid }) => pid !== null && pids.includes(pid))) {
      throw new Error("the engine is not the process that was in reserve");
    }
    return { before, after };
  }

  #workerPids(): number[] {
    const { pid } = this.#cluster.workers[0] ?? {};
    if (pid === undefined) throw new Error("there is no worker");
    return [pid, ...childrenOf(pid)];
  }

  async close(): Promise<void> {
    await this.#cluster.close();
  }
}

function memoryOf(pids: readonly number[]): ClusterMemory {
  const all = pids.map((pid) => processMemory(pid));
  const arena_bytes = all.reduce((sum, memory) => sum + memory.shared_memory_pss_bytes, 0);
  return { private_bytes: all.reduce((sum, memory) => sum + memory.pss_bytes, 0) - arena_bytes, arena_bytes };
}

function childrenOf(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
  return text === "" ? [] : text.split(" ").map(Number);
}
