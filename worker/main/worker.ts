/** A worker put together: tiers, supervisor, HTTP API and the link to the gateways. Knows no runtime. */
import path from "node:path";
import type { Hono } from "hono";
import { SllmNativeError } from "../../native/bun-ffi-helpers/errors.ts";
import type { NativeStore } from "../../native/bun-ffi-helpers/native.ts";
import type { engineKinds } from "../../schema/cluster/engine.ts";
import type { PlacementReport, StandbyReport } from "../../schema/cluster/membership.ts";
import { protocolVersion } from "../../schema/cluster/protocol.ts";
import type { WorkerStatus } from "../../schema/cluster/status.ts";
import type { Config } from "../../schema/config.ts";
import { SllmError } from "../../schema/error.ts";
import type { InstanceId, WorkerId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { WorkerState } from "../../schema/vocab.ts";
import { DiskBudget } from "../checkpoints/disk-budget.ts";
import { DiskTier, fileVersionNow } from "../checkpoints/disk-tier.ts";
import { HostTier } from "../checkpoints/host-tier.ts";
import { GatewayLink, type Report } from "../gateway-link/link.ts";
import { createWorkerApp } from "../http/app.ts";
import { type DeviceFacts, Devices } from "../instances/devices.ts";
import type { LaunchEngine } from "../instances/engine-process.ts";
import { StandbyPool } from "../instances/standby-pool.ts";
import { Supervisor } from "../instances/supervisor.ts";
import { LinkQueue } from "../links/link-queue.ts";
import { type GenerationParts, generationParts } from "../moves/generation-parts.ts";
import { LoadLog } from "../traces/load-log.ts";
import { defaultThreads } from "./device.ts";
import { newIncarnation } from "./identity.ts";
import { systemClock as clock, stderrLog as log } from "./system.ts";

/** The host's processors and memory are one device. */
const cpuDeviceId = "cpu";
/** How often the pre-fault of the arena is looked at, for a log line. */
const prefaultPollMs = 50;

export interface WorkerParts {
  readonly config: Config;
  readonly cluster_token: string;
  readonly worker_id: WorkerId;
  readonly version: string;
  /** Host memory for models: the host tier, on the processors also KV caches. */
  readonly memory_bytes: number;
  /** Discrete devices; without any the processors are the device. */
  readonly discrete: readonly DeviceFacts[];
  readonly store: NativeStore;
  readonly launch: LaunchEngine;
  readonly engine: (typeof engineKinds)[number];
  /** Another process has registered as this worker and counts from now on: this one has to end. */
  readonly onSuperseded: () => void;
  /** A gateway wants it to end, with its streams elsewhere. */
  readonly onDrained: () => void;
}

/** Nothing runs before `connect`; `stop` is the end. */
export class Worker {
  readonly #parts: WorkerParts;
  readonly #incarnation = newIncarnation();
  readonly #devices: Devices;
  readonly #disk: DiskTier;
  readonly #host: HostTier;
  readonly #diskBudget: DiskBudget;
  readonly #diskLink: LinkQueue;
  readonly #loads: LoadLog;
  readonly #standbys: StandbyPool;
  readonly #supervisor: Supervisor;
  readonly #generations: GenerationParts;
  readonly #app: Hono;
  #state: WorkerState = "ready";
  #link: GatewayLink | null = null;

  constructor(parts: WorkerParts) {
    const { config, launch, engine, worker_id, memory_bytes, discrete } = parts;
    const repacks = config.worker.weights_layout === "repacked";
    const processors = { device_id: cpuDeviceId, kind: "cpu", engine_name: null, repacks } as const;
    this.#parts = parts;
    this.#devices = new Devices(discrete.length > 0 ? discrete : [{ ...processors, memory_bytes }]);
    const directory = path.join(config.data_dir, "checkpoints");
    const { disk_bytes } = config.worker;
    const onChange = () => this.#link?.notify();
    this.#diskBudget = new DiskBudget({ directory, worker_id, disk_bytes, clock, log, onChange });
    const isEvicting = (digest: string) => this.#diskBudget.isEvicting(digest);
    this.#disk = new DiskTier({ directory, log, isEvicting });
    this.#diskLink = new LinkQueue({
      ...{ link: "disk", parallel: config.worker.disk_loads, clock },
      probed_bytes_per_s: () => probedBytesPerSecond(parts.store, directory, config.worker),
    });
    this.#loads = new LoadLog({ file: path.join(config.data_dir, "loads.jsonl"), log });
    this.#host = newHostTier(parts, this.#devices, this.#diskLink, onChange);
    this.#standbys = new StandbyPool({
      size: config.worker.standby_engines,
      // A skeleton holds all the device memory of its model, which nobody has booked.
      skeletons: discrete.length > 0 ? 0 : config.worker.standby_skeletons,
      ...{ launch, engine, clock, log, onChange },
    });
    this.#supervisor = new Supervisor({
      disk: this.#disk,
      host: this.#host,
      devices: this.#devices,
      useCheckpoint: (digest) => this.#diskBudget.use(digest),
      launch: this.#standbys.launch,
      engine,
      ...engineSettings(config),
      clock,
      log,
      onChange,
      onLoading: (isLoading) => this.#standbys.setLoading(isLoading),
      onLikely: (skeletons) => this.#standbys.setLikely(skeletons),
      onLoadEnded: (trace) => this.#loads.add(trace),
    });
    this.#generations = generationParts({
      ...{ worker_id, cluster_token: parts.cluster_token, clock },
      findInstance: (id) => this.#supervisor.get(id),
      isAccepting: () => this.#state === "ready",
      fetch: (url, init) => fetch(url, init),
    });
    this.#app = createWorkerApp({
      ...{ cluster_token: parts.cluster_token, incarnation: this.#incarnation },
      supervisor: this.#supervisor,
      ...this.#generations,
      status: () => this.#status(),
      loads: (query) => this.#loads.find(query),
      isReady: () => this.#state === "ready",
      onDrain: parts.onDrained,
      clock,
      log,
    });
  }

  /** Answers one HTTP request. */
  readonly handle = (request: Request): Response | Promise<Response> => this.#app.fetch(request);

  /** Fills the reserve and begins to report to the gateways; `url` is where they reach this worker. */
  async connect(url: string): Promise<void> {
    await this.#diskBudget.start();
    await this.#loads.open();
    this.#standbys.start();
    const { config, cluster_token, version } = this.#parts;
    this.#link = new GatewayLink({
      gateways: config.worker.gateways,
      cluster_token,
      identity: { url, version, devices: this.#devices.reports() },
      report: () => this.#report(),
      onDeployed: (digests, { placements }) => {
        const onDisk = placements.filter((p) => p.tier === "disk").map((p) => p.checkpoint);
        void this.#diskBudget.heard(digests, onDisk);
      },
      onRelease: (ids) => void this.#release(ids),
      onReported: ({ instances }) =>
        this.#supervisor.forget(instances.filter((i) => i.state === "gone").map((i) => i.instance_id)),
      onSuperseded: this.#parts.onSuperseded,
      fetch: (target, init) => fetch(target, init),
      clock,
      random: Math.random,
      log,
    });
    this.#link.start();
    void this.#followPrefault();
  }

  /** Lets its streams move to other workers for a while, ends all instances and says goodbye. */
  async stop(): Promise<void> {
    this.#state = "draining";
    this.#link?.notify();
    await this.#drain();
    await Promise.all([this.#supervisor.stopAll(), this.#standbys.stop()]);
    this.#state = "gone";
    await this.#link?.stop();
    await this.#loads.idle();
    this.#parts.store[Symbol.dispose]();
  }

  /** What runs may leave, as gateways see to, or finish. Without a gateway nobody reads or moves anything. */
  async #drain(): Promise<void> {
    const { generations } = this.#generations;
    const until_ms = clock.monotonicMs() + this.#parts.config.worker.drain_ms;
    while (generations.running().length > 0 && clock.monotonicMs() < until_ms) {
      if (this.#link?.gateway == null) return;
      await clock.sleep(limits.drain_poll_ms);
    }
    const left = generations.running().length;
    if (left > 0) log.warn("streams_cut", { generations: left });
  }

  /** One log line when the arena's memory is ready: until then loads pay for their own. */
  async #followPrefault(): Promise<void> {
    while (this.#state === "ready") {
      const { prefaulting, prefault_ms, ...arena } = this.#parts.store.arena();
      if (!prefaulting) {
        const { prefault_bytes, faulted_bytes, huge_bytes } = arena;
        const bytes = { prefault_bytes, faulted_bytes, huge_bytes };
        log.info("arena_prefaulted", { ...bytes, prefault_ms: Math.round(prefault_ms) });
        return;
      }
      await clock.sleep(prefaultPollMs);
    }
  }

  async #report(): Promise<Report> {
    this.#diskBudget.reporting();
    return {
      protocol_version: protocolVersion,
      worker_id: this.#parts.worker_id,
      incarnation: this.#incarnation,
      state: this.#state,
      placements: await this.#placements(),
      instances: this.#supervisor.reports(),
      links: [this.#diskLink.report()],
      problems: this.#disk.problems(),
      standby: this.#standby(),
    };
  }

  /** Loads that come may take them: gateways estimate by it how long these take. */
  #standby(): StandbyReport {
    const built = this.#standbys.skeletons.map(({ header_path }) => path.basename(path.dirname(header_path)));
    return { warm: this.#standbys.warm, built };
  }

  async #status(): Promise<WorkerStatus> {
    return {
      worker_id: this.#parts.worker_id,
      incarnation: this.#incarnation,
      version: this.#parts.version,
      state: this.#state,
      gateway: this.#link?.gateway ?? null,
      devices: this.#devices.reports(),
      placements: await this.#placements(),
      standby_engines: this.#standbys.warm,
      standby_skeletons: this.#standbys.built,
      instances: this.#supervisor.status(),
    };
  }

  async #placements(): Promise<PlacementReport[]> {
    return [...(await this.#disk.placements()), ...this.#host.placements()];
  }

  /** The cluster has let these go; one that is gone already needs nothing. */
  async #release(ids: readonly InstanceId[]): Promise<void> {
    for (const instance_id of ids) {
      try {
        await this.#supervisor.unload(instance_id, { if_idle: false });
      } catch (error) {
        if (!(error instanceof SllmError && error.code === "not_found")) throw error;
      }
    }
  }
}

/** What the worker's settings say of every engine. */
function engineSettings({ worker }: Config) {
  const { prefill_tokens, engine_queue, engine_stall_ms, engine_headroom_bytes, adapters } = worker;
  const threads = worker.threads ?? defaultThreads();
  return { threads, prefill_tokens, engine_queue, engine_stall_ms, engine_headroom_bytes, adapters };
}

/**
 * What the store knows of the disk, and no more than loads may read by the settings, which count alone before a probe; null
 * where neither says anything, and while the folder is away.
 */
function probedBytesPerSecond(
  store: NativeStore,
  directory: string,
  { disk_read_bytes_per_s: most }: Config["worker"],
): number | null {
  try {
    const { bytes_per_second } = store.volume(directory);
    return most === undefined ? bytes_per_second : Math.min(bytes_per_second ?? most, most);
  } catch (error) {
    // A folder that is away is reported as a problem of the store, with all that follows from it.
    if (error instanceof SllmNativeError) return null;
    throw error;
  }
}

function newHostTier(parts: WorkerParts, devices: Devices, link: LinkQueue, onEvicted: () => void): HostTier {
  const { config, store, memory_bytes, discrete } = parts;
  const onProcessors = discrete.length === 0;
  const cacheLimit =
    config.worker.host_cache_bytes ?? (onProcessors ? Math.floor(memory_bytes / 2) : memory_bytes);
  return new HostTier({
    store,
    clock,
    link,
    arena_bytes: config.worker.arena_bytes ?? Number.MAX_SAFE_INTEGER,
    fileVersion: fileVersionNow,
    // On a CPU the copies of stopped models lie in the very memory that instances book.
    cacheBytes: () => (onProcessors ? Math.min(cacheLimit, devices.freeBytes(cpuDeviceId)) : cacheLimit),
    process_id: process.pid,
    onEvicted,
  });
}
