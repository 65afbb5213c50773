/**
 * A worker inside the test's process: everything real (HTTP API, supervisor, memory accounting, generations, link to the
 * gateways) but the native store and the engine processes. Many of them make a fleet on one small machine.
 */
import { randomBytes } from "node:crypto";
import type { NativeArenaStatus, NativeLoadStatus } from "../../native/bun-ffi-helpers/native.ts";
import { protocolVersion } from "../../schema/cluster/protocol.ts";
import type { WorkerId } from "../../schema/ids.ts";
import { DiskTier } from "../../worker/checkpoints/disk-tier.ts";
import { HostTier } from "../../worker/checkpoints/host-tier.ts";
import { GatewayLink, type Report } from "../../worker/gateway-link/link.ts";
import { createWorkerApp } from "../../worker/http/app.ts";
import { Devices } from "../../worker/instances/devices.ts";
import { Supervisor } from "../../worker/instances/supervisor.ts";
import { LinkQueue } from "../../worker/links/link-queue.ts";
import { newIncarnation } from "../../worker/main/identity.ts";
import { systemClock as clock } from "../../worker/main/system.ts";
import { generationParts } from "../../worker/moves/generation-parts.ts";
import type { LogFields } from "../../worker/ports.ts";
import { newWorkerId } from "./cluster-facts.ts";
import { begunLoad } from "./native-load.ts";
import { ScriptedEngines } from "./scripted-engine.ts";

export interface FleetWorkerOptions {
  /** URLs of the gateways, the preferred one first. */
  readonly gateways: readonly string[];
  readonly cluster_token: string;
  /** Folder of checkpoints; several workers may share one, as hosts may share a disk. */
  readonly store: string;
  readonly memory_bytes: number;
  readonly token_ms: number;
  /** Drawn if left out. */
  readonly worker_id?: WorkerId;
}

const emptyArena: NativeArenaStatus = {
  arena_bytes: 2 ** 30,
  used_bytes: 0,
  faulted_bytes: 0,
  prefault_bytes: 0,
  prefault_ms: 0,
  prefaulting: false,
  huge_bytes: 0,
};

export class FleetWorker {
  readonly worker_id: WorkerId;
  readonly incarnation = newIncarnation();
  /** Instances whose load was begun, in their order. */
  readonly begun: string[] = [];
  /** Codes of the requests that were refused. */
  readonly refusals: string[] = [];
  readonly engines: ScriptedEngines;
  /** While true no report reaches a gateway; the worker itself can be reached. */
  isCutOff = false;
  isSuperseded = false;
  readonly #options: FleetWorkerOptions;
  readonly #supervisor: Supervisor;
  readonly #disk: DiskTier;
  readonly #server: Bun.Server<undefined>;
  readonly #link: GatewayLink;

  private constructor(options: FleetWorkerOptions) {
    this.#options = options;
    this.worker_id = options.worker_id ?? newWorkerId();
    this.engines = new ScriptedEngines({ load_ms: 20, token_ms: options.token_ms });
    const devices = new Devices([
      { device_id: "cpu", kind: "cpu", memory_bytes: options.memory_bytes, engine_name: null },
    ]);
    this.#disk = new DiskTier({ directory: options.store, log: this.#log });
    this.#supervisor = this.#newSupervisor(devices);
    const app = createWorkerApp({
      cluster_token: options.cluster_token,
      incarnation: this.incarnation,
      supervisor: this.#supervisor,
      ...generationParts({
        worker_id: this.worker_id,
        cluster_token: options.cluster_token,
        findInstance: (id) => this.#supervisor.get(id),
        fetch: (url, init) => fetch(url, init),
        clock,
      }),
      status: () => Promise.reject(new Error("nobody asks")),
      loads: () => [],
      isReady: () => true,
      onDrain: () => undefined,
      clock,
      log: this.#log,
    });
    const handle = async (request: Request) => {
      const response = await app.fetch(request);
      if (!response.ok) this.refusals.push((await response.clone().json()).error.code);
      return response;
    };
    this.#server = Bun.serve({ hostname: "127.0.0.1", port: 0, idleTimeout: 0, fetch: handle });
    this.#link = this.#newLink(devices);
  }

  /** Begins to report. */
  static start(options: FleetWorkerOptions): FleetWorker {
    const worker = new FleetWorker(options);
    worker.#link.start();
    return worker;
  }

  /** The gateway that it reports to; null while there is none. */
  get gateway(): string | null {
    return this.#link.gateway;
  }

  /** Instances that are here and have not ended. */
  live(): string[] {
    const ended = new Set(["gone", "failed"]);
    return this.#supervisor
      .reports()
      .filter((report) => !ended.has(report.state))
      .map((report) => report.instance_id);
  }

  /** Where gateways reach it. */
  get url(): string {
    return this.#server.url.origin;
  }

  /** Ends without a word, as a host does that loses its power. */
  async kill(): Promise<void> {
    this.isCutOff = true;
    await this.#link.stop();
    await this.#supervisor.stopAll();
    await this.#server.stop(true);
  }

  readonly #log = {
    info: (event: string, fields: LogFields = {}) => {
      if (event === "instance_loading") this.begun.push(String(fields.instance_id));
    },
    warn: () => {},
    error: () => {},
  };

  #newSupervisor(devices: Devices): Supervisor {
    const read: NativeLoadStatus = { ...begunLoad, state: "ready", bytes_done: 4_096, bytes_total: 4_096 };
    return new Supervisor({
      disk: this.#disk,
      host: new HostTier({
        store: { load: () => 1n, status: () => read, release: () => {}, arena: () => emptyArena },
        clock,
        link: new LinkQueue({ link: "disk", parallel: 2, clock }),
        fileVersion: () => "",
        cacheBytes: () => 0,
        process_id: process.pid,
      }),
      useCheckpoint: async () => () => {},
      engine: "llama",
      ...{ devices, launch: this.engines.launch, threads: 1, prefill_tokens: 256, adapters: 8 },
      ...{ engine_queue: 64, engine_stall_ms: 3_600_000, engine_headroom_bytes: 0, clock, log: this.#log },
      onChange: () => this.#link.notify(),
      onLoading: () => {},
      onLikely: () => {},
      onLoadEnded: () => {},
    });
  }

  #newLink(devices: Devices): GatewayLink {
    const { gateways, cluster_token } = this.#options;
    return new GatewayLink({
      gateways,
      cluster_token,
      identity: { url: this.url, version: "0.0.0-test", devices: devices.reports() },
      report: () => this.#report(),
      onRelease: (ids) =>
        void Promise.allSettled(ids.map((id) => this.#supervisor.unload(id, { if_idle: false }))),
      onDeployed: () => {},
      onReported: ({ instances }) =>
        this.#supervisor.forget(instances.filter((i) => i.state === "gone").map((i) => i.instance_id)),
      onSuperseded: () => {
        this.isSuperseded = true;
      },
      fetch: (url, init) => (this.isCutOff ? Promise.reject(new TypeError("cut off")) : fetch(url, init)),
      clock,
      random: () => randomBytes(1).readUInt8() / 256,
      log: this.#log,
    });
  }

  async #report(): Promise<Report> {
    return {
      protocol_version: protocolVersion,
      worker_id: this.worker_id,
      incarnation: this.incarnation,
      state: "ready",
      placements: await this.#disk.placements(),
      instances: this.#supervisor.reports(),
      links: [],
      problems: [],
    };
  }
}
