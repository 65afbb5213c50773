/** A worker put together: tiers, supervisor, HTTP API and the link to the gateways. Knows no runtime. */
import path from "node:path";
import type { NativeStore } from "../../native/bun-ffi-helpers/native.ts";
import type { engineKinds } from "../../schema/cluster/engine.ts";
import type { DeviceReport } from "../../schema/cluster/membership.ts";
import { protocolVersion } from "../../schema/cluster/protocol.ts";
import type { WorkerStatus } from "../../schema/cluster/status.ts";
import type { Config } from "../../schema/config.ts";
import type { WorkerId } from "../../schema/ids.ts";
import type { WorkerState } from "../../schema/vocab.ts";
import { DiskTier } from "../checkpoints/disk-tier.ts";
import { HostTier } from "../checkpoints/host-tier.ts";
import { GatewayLink, type Report } from "../gateway-link/link.ts";
import { GenerationRegistry } from "../generations/registry.ts";
import { createWorkerApp } from "../http/app.ts";
import { DeviceMemory } from "../instances/device-memory.ts";
import type { LaunchEngine } from "../instances/engine-process.ts";
import { Supervisor } from "../instances/supervisor.ts";
import { defaultMemoryBytes, defaultThreads } from "./device.ts";
import { newIncarnation } from "./identity.ts";
import { stderrLog, systemClock } from "./system.ts";

/** The host's processors and memory are one device. */
const cpuDeviceId = "cpu";

export interface WorkerParts {
  readonly config: Config;
  readonly cluster_token: string;
  readonly worker_id: WorkerId;
  readonly version: string;
  readonly store: NativeStore;
  readonly launch: LaunchEngine;
  readonly engine: (typeof engineKinds)[number];
}

export interface Worker {
  readonly handle: (request: Request) => Response | Promise<Response>;
  /** Begins to report to the gateways; `url` is where they reach this worker. */
  connect(url: string): void;
  /** Ends all instances and says goodbye. */
  stop(): Promise<void>;
}

/** Builds a worker; nothing runs before `connect`. */
export function createWorker(parts: WorkerParts): Worker {
  const { config, worker_id, version } = parts;
  const clock = systemClock;
  const log = stderrLog;
  const incarnation = newIncarnation();
  const memory_bytes = config.worker.memory_bytes ?? defaultMemoryBytes();
  const devices: DeviceReport[] = [{ device_id: cpuDeviceId, kind: "cpu", memory_bytes }];
  let state: WorkerState = "ready";
  let link: GatewayLink | null = null;

  const memory = new DeviceMemory(memory_bytes);
  const cacheLimit = config.worker.host_cache_bytes ?? Math.floor(memory_bytes / 2);
  const disk = new DiskTier({ directory: path.join(config.data_dir, "checkpoints"), log });
  const host = new HostTier({
    store: parts.store,
    clock,
    // On a CPU the copies of stopped models lie in the very memory that instances book.
    cacheBytes: () => Math.min(cacheLimit, memory.free_bytes),
    process_id: process.pid,
  });
  const supervisor = new Supervisor({
    disk,
    host,
    device_id: cpuDeviceId,
    memory,
    launch: parts.launch,
    engine: parts.engine,
    threads: config.worker.threads ?? defaultThreads(),
    clock,
    log,
    onChange: () => link?.notify(),
  });
  const generations = new GenerationRegistry({ findInstance: (id) => supervisor.get(id), clock });

  const placements = async () => [...(await disk.placements()), ...host.placements()];
  const report = async (): Promise<Report> => ({
    protocol_version: protocolVersion,
    worker_id,
    incarnation,
    state,
    placements: await placements(),
    instances: supervisor.reports(),
  });
  const status = async (): Promise<WorkerStatus> => ({
    worker_id,
    version,
    state,
    gateway: link?.gateway ?? null,
    devices,
    placements: await placements(),
    instances: supervisor.status(),
  });

  const app = createWorkerApp({
    cluster_token: parts.cluster_token,
    supervisor,
    generations,
    status,
    isReady: () => state === "ready",
    clock,
    log,
  });
  return {
    handle: (request) => app.fetch(request),
    connect(url) {
      link = new GatewayLink({
        gateways: config.worker.gateways,
        cluster_token: parts.cluster_token,
        identity: { url, version, devices },
        report,
        onRelease: (ids) => void releaseInstances(supervisor, ids),
        onReported: ({ instances }) =>
          supervisor.forget(instances.filter((i) => i.state === "gone").map((i) => i.instance_id)),
        fetch: (target, init) => fetch(target, init),
        clock,
        random: Math.random,
        log,
      });
      link.start();
    },
    async stop() {
      state = "draining";
      link?.notify();
      await supervisor.stopAll();
      state = "gone";
      await link?.stop();
      parts.store[Symbol.dispose]();
    },
  };
}

/** The cluster has let these go; one that is gone already needs nothing. */
async function releaseInstances(supervisor: Supervisor, ids: readonly string[]): Promise<void> {
  for (const id of ids) {
    try {
      await supervisor.unload(id, { if_idle: false });
    } catch (error) {
      stderrLog.info("release_skipped", {
        instance_id: id,
        reason: error instanceof Error ? error.message : "",
      });
    }
  }
}
