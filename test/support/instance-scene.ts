/** Everything around one instance, led by hand: engine, host tier, memory and time. */
import type { NativeLoadStatus } from "../../native/bun-ffi-helpers/native.ts";
import type { EngineCommand } from "../../schema/cluster/engine.ts";
import type { LoadTrace } from "../../schema/cluster/loads.ts";
import { SllmError } from "../../schema/error.ts";
import { Changes } from "../../worker/changes.ts";
import type { HostLease } from "../../worker/checkpoints/host-lease.ts";
import type { EngineObserver } from "../../worker/instances/engine-process.ts";
import { Instance } from "../../worker/instances/instance.ts";
import type { InstanceOptions } from "../../worker/instances/instance-options.ts";
import type { GenerateSettings } from "../../worker/instances/request-table.ts";
import { LoadRecorder } from "../../worker/traces/load-recorder.ts";
import { ManualClock, settle } from "./manual-clock.ts";
import { begunLoad } from "./native-load.ts";
import { tinyContent } from "./tiny-checkpoint.ts";

export const { manifest } = tinyContent();
export const directory = "/data/tiny";
export const checkpoint = {
  digest: manifest.digest,
  directory,
  manifest,
  header_path: `${directory}/header.gguf`,
  weights_path: `${directory}/weights.bin`,
};
/** Weights of every adapter. */
export const adapterBytes = 4_096;
/** A request for four tokens. */
export const settings: GenerateSettings = {
  prompt: { kind: "text", text: "x" },
  sampling: { temperature: 0, top_k: 0, top_p: 1, min_p: 0, seed: "1" },
  stop: [],
  max_tokens: 4,
  ignore_eos: false,
};

export class InstanceScene {
  readonly clock = new ManualClock();
  readonly sent: EngineCommand[] = [];
  readonly traces: LoadTrace[] = [];
  readonly reads = new Changes();
  readonly header = Promise.withResolvers<void>();
  observer: EngineObserver | null = null;
  read: NativeLoadStatus = {
    ...begunLoad,
    bytes_total: manifest.weights.bytes,
  };
  wasPresent = false;
  wasStandby = false;
  hasSkeleton = false;
  killed = 0;
  /** Of the engine's log. */
  lastLines: readonly string[] = [];
  leases = 0;
  leaseReleases = 0;
  /** Host copies of adapters that were let go. */
  adapterReleases = 0;
  /** What was booked after the first load. */
  readonly booked: string[] = [];
  isFull = false;
  /** Evicts the copy that a parked instance keeps. */
  evict: () => Promise<void> = () => Promise.reject(new Error("nothing is kept"));
  memoryReleases = 0;
  readonly placement: InstanceOptions["placement"] = {
    engine_devices: "",
    computesOnHostCopy: true,
    repacks: false,
  };
  readonly instance: Instance;

  /** `placement`: where it lives when not on the processors. */
  constructor(placement?: InstanceScene["placement"], memory_limit_bytes: number | null = null) {
    if (placement) this.placement = placement;
    this.instance = new Instance({
      request: {
        protocol_version: 1,
        instance_id: "i-00000000000000aa",
        model_id: "m",
        checkpoint: manifest.digest,
        device_id: "cpu",
        context_tokens: 64,
        slots: 2,
      },
      checkpoint,
      engine: "llama",
      threads: 3,
      prefill_tokens: 256,
      engine_queue: 8,
      engine_stall_ms: 60_000,
      memory_limit_bytes,
      placement: this.placement,
      clock: this.clock,
      launch: (observer) => {
        this.observer = observer;
        if (this.wasStandby) observer.onMessage({ type: "hello", pid: 4711, abi_version: 1 });
        return {
          pid: 4711,
          hasSkeleton: this.hasSkeleton,
          isRunning: () => true,
          lastLines: () => this.lastLines,
          send: (command) => this.sent.push(command),
          stop: async () => this.end("status 0"),
          kill: () => void this.killed++,
        };
      },
      acquire: async () => this.lend(),
      trace: new LoadRecorder(this.clock),
      onLoadEnded: (trace) => this.traces.push(trace),
      onParked: () => void this.booked.push("parked"),
      onResuming: () => {
        if (this.isFull) throw new SllmError("insufficient_memory", "full");
        this.booked.push("running");
      },
      adapters: this.#adapters(),
      verifyHeader: () => this.header.promise,
      onChange: () => {},
      onReleased: () => {
        this.memoryReleases++;
      },
    });
  }

  #adapters(): InstanceOptions["adapters"] {
    return {
      ...{ most: 2, in_place: false },
      fetch: async (checkpoint) => ({
        header_path: `${checkpoint}/header.gguf`,
        weights_path: "/proc/1/fd/99",
        weights_bytes: adapterBytes,
        release: () => void this.adapterReleases++,
      }),
      book: (bytes) => {
        if (this.isFull) throw new SllmError("insufficient_memory", "full");
        this.booked.push(`adapters ${bytes}`);
      },
    };
  }

  lend(): HostLease {
    this.leases++;
    let isOver = false;
    return {
      weights_path: `/proc/1/fd/${8 + this.leases}`,
      was_present: this.wasPresent,
      was_begun: !this.wasPresent,
      status: () => this.read,
      changed: () => this.reads.wait(),
      keep: (letGo) => {
        this.evict = () => {
          isOver = true;
          return letGo();
        };
      },
      use: () => !isOver,
      release: () => {
        this.leaseReleases++;
      },
    };
  }

  setRead(change: Partial<NativeLoadStatus>): Promise<void> {
    this.read = { ...this.read, ...change };
    this.reads.notify();
    return settle();
  }

  end(reason: string, last_lines: string[] = []): void {
    const observer = this.observer;
    this.observer = null;
    observer?.onEnd({ reason, last_lines });
  }

  /** Brings it to `ready` in the usual order. */
  async makeReady(): Promise<void> {
    void this.instance.load();
    this.header.resolve();
    await settle();
    if (!this.wasStandby) this.observer?.onMessage({ type: "hello", pid: 4711, abi_version: 1 });
    await this.setRead({ state: "ready", bytes_done: manifest.weights.bytes, read_ms: 12 });
    this.observer?.onMessage({ type: "ready", model_build_ms: 7, weights_wait_ms: 0 });
  }
}
