/** What an instance needs of the worker around it. */
import type { engineKinds } from "../../schema/cluster/engine.ts";
import type { LoadRequest } from "../../schema/cluster/instances.ts";
import type { LoadTrace } from "../../schema/cluster/loads.ts";
import { isRepacked } from "../../schema/memory.ts";
import type { StoredCheckpoint } from "../checkpoints/disk-tier.ts";
import type { AcquireOptions, HostLease } from "../checkpoints/host-lease.ts";
import type { Clock } from "../ports.ts";
import type { LoadRecorder } from "../traces/load-recorder.ts";
import type { AdaptersOptions } from "./adapters.ts";
import type { DevicePlacement } from "./devices.ts";
import type { LaunchEngine, Skeleton } from "./engine-process.ts";

export interface InstanceOptions {
  readonly request: LoadRequest;
  readonly checkpoint: StoredCheckpoint;
  readonly engine: (typeof engineKinds)[number];
  readonly threads: number;
  readonly prefill_tokens: number;
  readonly engine_queue: number;
  /** Time without a sign of life after which the engine is ended. */
  readonly engine_stall_ms: number;
  /** Memory of its own that the engine may take; null: no limit. */
  readonly memory_limit_bytes: number | null;
  readonly placement: Pick<DevicePlacement, "engine_devices" | "computesOnHostCopy" | "repacks">;
  readonly launch: LaunchEngine;
  /** Takes a share of the checkpoint's host copy. */
  readonly acquire: (options: AcquireOptions) => Promise<HostLease>;
  /** How it comes by adapters, how many it holds, and how memory for them is booked. */
  readonly adapters: Pick<AdaptersOptions, "most" | "in_place" | "fetch" | "book">;
  /** Notes where the time of the first load goes; begun when it was asked for. */
  readonly trace: LoadRecorder;
  /** Called when a load or a resume has ended. */
  readonly onLoadEnded: (trace: LoadTrace) => void;
  /** Resolves when the checkpoint's header is known to be good. */
  readonly verifyHeader: () => Promise<void>;
  readonly clock: Clock;
  /** Called after every change of state. */
  readonly onChange: () => void;
  /** Called when a parked instance has let its memory go, so that less is booked. */
  readonly onParked: () => void;
  /** Books the memory of a parked instance that is to run again. Errors: `insufficient_memory`. */
  readonly onResuming: () => void;
  /** Called once, when the process is gone. */
  readonly onReleased: () => void;
}

type SkeletonFacts = Pick<
  InstanceOptions,
  "request" | "checkpoint" | "engine" | "threads" | "placement" | "prefill_tokens" | "engine_queue"
>;

/** What an engine builds for the instance before it has weights. */
export function skeletonOf(options: SkeletonFacts): Skeleton {
  const { request, checkpoint, engine, threads, placement, prefill_tokens, engine_queue } = options;
  const { kv_tokens, deterministic } = request;
  const devices = placement.engine_devices;
  return {
    op: "build",
    engine,
    header_path: checkpoint.header_path,
    weights_bytes: checkpoint.manifest.weights.bytes,
    context_tokens: request.context_tokens,
    slots: request.slots,
    threads,
    prefill_tokens,
    queue: engine_queue,
    ...(isRepacked({ ...request, ...placement }) ? { repacked: true } : {}),
    ...(kv_tokens === undefined ? {} : { kv_tokens }),
    ...(deterministic === undefined ? {} : { deterministic }),
    ...(devices === "" ? {} : { devices }),
  };
}
