/** All instances of this worker: admits loads within its devices' memory, ends instances, reports what there is. */
import type { engineKinds } from "../../schema/cluster/engine.ts";
import type { LoadRequest } from "../../schema/cluster/instances.ts";
import type { LoadTrace } from "../../schema/cluster/loads.ts";
import type { InstanceReport } from "../../schema/cluster/membership.ts";
import type { PreloadOutcome } from "../../schema/cluster/preloads.ts";
import type { WorkerStatus } from "../../schema/cluster/status.ts";
import { SllmError } from "../../schema/error.ts";
import type { CheckpointDigest, InstanceId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import { instanceMemoryBytes, parkedMemoryBytes } from "../../schema/memory.ts";
import type { DiskTier } from "../checkpoints/disk-tier.ts";
import type { HostTier } from "../checkpoints/host-tier.ts";
import { asModel, type StoredModel } from "../checkpoints/import/verify.ts";
import type { Clock, Log } from "../ports.ts";
import { LoadRecorder } from "../traces/load-recorder.ts";
import { fetchAdapter } from "./adapter-source.ts";
import type { DevicePlacement, Devices } from "./devices.ts";
import type { LaunchEngine, Skeleton } from "./engine-process.ts";
import { Instance } from "./instance.ts";
import type { InstanceOptions } from "./instance-options.ts";
import { LikelyModels } from "./likely-models.ts";

export interface SupervisorOptions {
  readonly disk: DiskTier;
  readonly host: HostTier;
  /** Marks what is in use on disk; resolves to the release. */
  readonly useCheckpoint: (digest: CheckpointDigest) => Promise<() => void>;
  readonly devices: Devices;
  readonly launch: LaunchEngine;
  readonly engine: (typeof engineKinds)[number];
  readonly threads: number;
  /** Of every engine; see `engineCommand`. */
  readonly prefill_tokens: number;
  readonly engine_queue: number;
  readonly engine_stall_ms: number;
  /** Adapters that an instance holds at once. */
  readonly adapters: number;
  /** What an engine may take beyond what its instance has booked; 0: no limit. */
  readonly engine_headroom_bytes: number;
  readonly clock: Clock;
  readonly log: Log;
  /** Called when an instance appears or changes its state. */
  readonly onChange: () => void;
  /** Told after each such change whether any instance is loading, and before its process is started. */
  readonly onLoading: (isLoading: boolean) => void;
  /** Told after each such change which models that do not run are likely to be wanted, the likeliest first. */
  readonly onLikely: (skeletons: readonly Skeleton[]) => void;
  /** Told the trace of every load that has ended. */
  readonly onLoadEnded: (trace: LoadTrace) => void;
}

interface Begun extends Pick<InstanceOptions, "request" | "trace"> {
  readonly checkpoint: StoredModel;
  readonly placement: DevicePlacement;
  /** Ends the use of the checkpoint on disk. */
  readonly letGo: () => void;
}

export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #instances = new Map<InstanceId, Instance>();
  readonly #likely = new LikelyModels();
  /** Loads whose checkpoint is being looked up: the same id must not begin twice meanwhile. */
  readonly #beginning = new Map<InstanceId, Promise<Instance>>();
  #draining = false;

  constructor(options: SupervisorOptions) {
    this.#options = options;
  }

  /**
   * Starts an instance, or finds the one that already has this id: a parked one is resumed. Resolves as soon as the load
   * has begun. Errors:
   * `checkpoint_unavailable`, `checkpoint_invalid`, `insufficient_memory`, `overloaded`, `state_conflict`,
   * `not_found` for a device that is not here.
   */
  async load(request: LoadRequest): Promise<Instance> {
    const { instance_id } = request;
    const known = this.#instances.get(instance_id) ?? this.#beginning.get(instance_id);
    // Without a wait in between, so that nobody else begins meanwhile.
    if (known) return await this.#again(sameLoad(await known, request));
    const begun = this.#begin(request).finally(() => this.#beginning.delete(instance_id));
    this.#beginning.set(instance_id, begun);
    return begun;
  }

  async #again(instance: Instance): Promise<Instance> {
    if (instance.state !== "parked") return instance;
    this.#admit();
    await instance.resume();
    // What is booked leaves less for copies that nobody uses.
    this.#options.host.trim();
    return instance;
  }

  /** Reads a checkpoint ahead. Errors: `checkpoint_unavailable`, `checkpoint_invalid`, `state_conflict`. */
  async preload(digest: CheckpointDigest): Promise<PreloadOutcome> {
    this.#admit();
    const { useCheckpoint, disk, host } = this.#options;
    const letGo = await useCheckpoint(digest);
    try {
      const { outcome, done } = host.preload(await disk.find(digest));
      void done.then(letGo);
      return outcome;
    } catch (error) {
      letGo();
      throw error;
    }
  }

  /** Parks an idle instance. Errors: `not_found`, `instance_busy`, `state_conflict`, `engine_failed`. */
  async park(instance_id: InstanceId): Promise<void> {
    await this.get(instance_id).park();
  }

  /** The instance of an id. Errors: `not_found` when there is none or it is gone. */
  get(instance_id: InstanceId): Instance {
    const instance = this.#instances.get(instance_id);
    if (!instance || instance.state === "gone") {
      throw new SllmError("not_found", `There is no instance ${instance_id} on this worker.`);
    }
    return instance;
  }

  /** Ends an instance; resolves when its process is gone. Errors: `not_found`, `instance_busy` with `if_idle`. */
  async unload(instance_id: InstanceId, options: { readonly if_idle: boolean }): Promise<void> {
    const instance = this.get(instance_id);
    if (options.if_idle && (instance.isBusy || instance.state === "loading")) {
      throw new SllmError("instance_busy", `Instance ${instance_id} is in use.`);
    }
    await instance.stop();
  }

  /** What the heartbeat tells: all instances, those that have ended since the last acknowledged one included. */
  reports(): InstanceReport[] {
    return [...this.#instances.values()].map((instance) => instance.report());
  }

  /** What the operator sees: the instances that are here. */
  status(): WorkerStatus["instances"] {
    return [...this.#instances.values()]
      .filter((instance) => instance.state !== "gone")
      .map((instance) => ({ ...instance.report(), pid: instance.pid }));
  }

  /** Forgets instances that a gateway knows to be gone. */
  forget(instance_ids: readonly InstanceId[]): void {
    for (const id of instance_ids) {
      if (this.#instances.get(id)?.state === "gone") this.#instances.delete(id);
    }
  }

  /** Refuses new loads from now on and ends all instances. */
  async stopAll(): Promise<void> {
    this.#draining = true;
    await Promise.allSettled(this.#beginning.values());
    await Promise.all([...this.#instances.values()].map((instance) => instance.stop()));
  }

  /** Whatever ends the instance, or keeps it from being made, lets the checkpoint go. */
  async #begin(request: LoadRequest): Promise<Instance> {
    const trace = new LoadRecorder(this.#options.clock);
    trace.begin("lookup");
    this.#admit();
    const placement = this.#options.devices.place(request.device_id);
    const letGo = await this.#options.useCheckpoint(request.checkpoint);
    try {
      return await this.#beginOn(placement, request, trace, letGo);
    } catch (error) {
      letGo();
      throw error;
    }
  }

  async #beginOn(
    placement: DevicePlacement,
    request: LoadRequest,
    trace: LoadRecorder,
    letGo: () => void,
  ): Promise<Instance> {
    const checkpoint = asModel(await this.#options.disk.find(request.checkpoint));
    this.#admit();
    const { instance_id } = request;
    placement.book(instance_id, memoryBytes(checkpoint, request, placement));
    trace.end("lookup");
    const instance = this.#create({ request, checkpoint, placement, trace, letGo });
    this.#instances.set(instance_id, instance);
    this.#options.log.info("instance_loading", { instance_id, model_id: request.model_id });
    this.#options.onLoading(true);
    void instance.load();
    this.#options.onChange();
    return instance;
  }

  /** What an instance's adapters take beyond what the load has booked for them is booked as they come. */
  #adaptersOf({ request, checkpoint, placement }: Begun): InstanceOptions["adapters"] {
    const booked = memoryBytes(checkpoint, request, placement);
    return {
      most: this.#options.adapters,
      in_place: placement.engine_devices === "",
      fetch: (digest, signal) => fetchAdapter(this.#options, digest, signal),
      book: (bytes) => {
        const more = Math.max(0, bytes - (request.adapter_bytes ?? 0));
        placement.rebook(request.instance_id, booked + more);
        this.#options.host.trim();
      },
    };
  }

  #create(begun: Begun): Instance {
    const { host, disk, launch, engine, threads, clock, onChange, onLoadEnded } = this.#options;
    const { prefill_tokens, engine_queue, engine_stall_ms, engine_headroom_bytes: headroom } = this.#options;
    const { request, checkpoint, placement, trace, letGo } = begun;
    const { instance_id } = request;
    const instance = new Instance({
      request,
      checkpoint,
      engine,
      threads,
      prefill_tokens,
      engine_queue,
      engine_stall_ms,
      memory_limit_bytes: headroom === 0 ? null : memoryBytes(checkpoint, request, placement) + headroom,
      placement,
      launch,
      clock,
      trace,
      onLoadEnded,
      acquire: async (options) => {
        const mayStream = !placement.computesOnHostCopy;
        const lease = await host.acquire(checkpoint, { ...options, mayStream, devices: placement.devices });
        // What is booked leaves less for copies that nobody uses.
        host.trim();
        return lease;
      },
      adapters: this.#adaptersOf(begun),
      verifyHeader: () => disk.verifyHeader(checkpoint),
      onParked: () => placement.rebook(instance_id, parkedMemoryBytes()),
      onResuming: () => placement.rebook(instance_id, memoryBytes(checkpoint, request, placement)),
      onReleased: () => {
        placement.release(instance_id);
        letGo();
      },
      onChange: () => {
        this.#note(instance);
        onChange();
      },
    });
    return instance;
  }

  #admit(): void {
    if (this.#draining) throw new SllmError("state_conflict", "This worker is shutting down.");
    const gone = [...this.#instances.values()].filter((instance) => instance.state === "gone");
    if (this.#instances.size - gone.length >= limits.instances) {
      throw new SllmError("overloaded", `This worker has ${limits.instances} instances already.`);
    }
    // Without a gateway nobody acknowledges what has ended; the oldest reports are then dropped.
    this.forget(gone.slice(0, -limits.instances).map((instance) => instance.request.instance_id));
  }

  /** One log line per change of state. */
  #note(instance: Instance): void {
    const all = [...this.#instances.values()];
    this.#options.onLoading(all.some((one) => one.state === "loading"));
    if (instance.state === "ready") this.#likely.used(instance.skeleton, this.#options.clock.monotonicMs());
    const live = all.filter((one) => one.state !== "gone" && one.state !== "failed");
    this.#options.onLikely(this.#likely.without(live.map((one) => one.skeleton)));
    const { state, error, request } = instance;
    const fields = { instance_id: request.instance_id, model_id: request.model_id };
    if (state === "failed") {
      this.#options.log.warn("instance_failed", { ...fields, code: error?.code, reason: error?.message });
    } else this.#options.log.info(`instance_${state}`, fields);
  }
}

function memoryBytes(
  { manifest }: StoredModel,
  request: LoadRequest,
  { repacks }: Pick<DevicePlacement, "repacks">,
): number {
  return instanceMemoryBytes(manifest.model, manifest.weights.bytes, { ...request, repacks });
}

/** The same id must mean the same load. */
function sameLoad(instance: Instance, request: LoadRequest): Instance {
  const had = instance.request;
  const same =
    had.model_id === request.model_id &&
    had.checkpoint === request.checkpoint &&
    had.device_id === request.device_id &&
    had.context_tokens === request.context_tokens &&
    had.slots === request.slots &&
    had.kv_tokens === request.kv_tokens &&
    had.deterministic === request.deterministic &&
    had.adapter_bytes === request.adapter_bytes;
  if (same) return instance;
  throw new SllmError("state_conflict", `Instance ${request.instance_id} was loaded with other settings.`);
}
