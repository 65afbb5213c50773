/**
 * Follows the loads of instances to their end and writes what became of them. One follower per instance; asking
 * again attaches. Any gateway may follow any load: the worker answers all, and the store takes the first word.
 */
import type { LoadRequest, LoadTimings } from "../../schema/cluster/instances.ts";
import { protocolVersion } from "../../schema/cluster/protocol.ts";
import type { ErrorCode } from "../../schema/codes.ts";
import type { InstanceRow } from "../../schema/db/tables.ts";
import { SllmError, toSllmError } from "../../schema/error.ts";
import type { InstanceId, ModelId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { Clock, Log, StateStore, WorkerClient } from "../ports.ts";
import type { Fleet } from "./fleet.ts";
import { isPassing, type StartHistory } from "./start-history.ts";
import { writeWhenPossible } from "./state-writes.ts";

export interface LoadProgress {
  readonly bytes_done: number;
  readonly bytes_total: number;
  readonly eta_ms: number | null;
}

export type LoadOutcome =
  /** `timings` is null when another gateway saw the load end. */
  | { readonly ok: true; readonly timings: LoadTimings | null }
  | { readonly ok: false; readonly error: SllmError };

export interface Load {
  /** Never rejects. */
  readonly outcome: Promise<LoadOutcome>;
  /** As last reported; null before the first report. */
  progress(): LoadProgress | null;
}

interface FollowedLoad extends Load {
  readonly leave: AbortController;
}

/** Uses of a loading instance that its follower holds itself. */
export const followerUses = 1;

export interface LoadsDeps {
  readonly fleet: Fleet;
  readonly store: Pick<StateStore, "moveInstance">;
  readonly workers: Pick<WorkerClient, "load">;
  readonly history: StartHistory;
  readonly clock: Clock;
  readonly log: Log;
}

/** Codes that say what is wrong with the model or its files; clients get them as they are. */
const tellingCodes: ReadonlySet<ErrorCode> = new Set([
  "checkpoint_invalid",
  "checkpoint_unsupported",
  "checkpoint_unavailable",
  "insufficient_memory",
  "model_too_large",
  "arena_too_small",
  "permission_denied",
  "store_missing",
  "disk_full",
  "file_changed",
  "native_unavailable",
  "worker_unavailable",
  "engine_killed",
  "state_unavailable",
]);

/** What clients are told of a load that failed. What befell the worker or the engine lets a request be placed again. */
function toldOf(model_id: ModelId, error: SllmError): SllmError {
  if (tellingCodes.has(error.code)) return error;
  const code = isPassing(error.code) ? "worker_unavailable" : "model_load_failed";
  return new SllmError(code, `${model_id} could not be started: ${error.message}`, { cause: error });
}

export class Loads {
  readonly #deps: LoadsDeps;
  readonly #followed = new Map<InstanceId, FollowedLoad>();

  constructor(deps: LoadsDeps) {
    this.#deps = deps;
  }

  /** Starts the load of a loading instance at its worker, or attaches to it. */
  follow(row: InstanceRow): Load {
    const known = this.#followed.get(row.instance_id);
    if (known !== undefined) return known;
    let progress: LoadProgress | null = null;
    const leave = new AbortController();
    const report = (reported: LoadProgress) => {
      progress = reported;
    };
    const outcome = this.#run(row, report, leave).finally(() => this.#followed.delete(row.instance_id));
    const load = { outcome, progress: () => progress, leave };
    this.#followed.set(row.instance_id, load);
    return load;
  }

  /**
   * Leaves the loads that no request waits for. They go on at their workers; whoever follows them next writes their
   * end. Loads that requests wait for are followed on.
   */
  leaveUnawaited(): void {
    for (const [instance_id, { leave }] of this.#followed) {
      if (this.#deps.fleet.inFlight(instance_id) <= followerUses) leave.abort();
    }
  }

  async #run(
    row: InstanceRow,
    report: (progress: LoadProgress) => void,
    leave: AbortController,
  ): Promise<LoadOutcome> {
    const use = this.#deps.fleet.acquire(row.instance_id, () => leave.abort());
    try {
      return await this.#watch(row, report, leave.signal);
    } catch (thrown) {
      const error = toSllmError(thrown);
      this.#deps.log.error("load_not_recorded", { instance_id: row.instance_id, code: error.code }, thrown);
      return { ok: false, error };
    } finally {
      use.release();
    }
  }

  /** A worker that cannot be reached is asked again a few times: the same call attaches to the same load. */
  async #watch(
    row: InstanceRow,
    report: (progress: LoadProgress) => void,
    signal: AbortSignal,
  ): Promise<LoadOutcome> {
    const { clock } = this.#deps;
    for (let attempt = 1; ; attempt++) {
      let timings: LoadTimings | null;
      try {
        timings = await this.#readToReady(row, report, signal);
      } catch (thrown) {
        const error = toSllmError(thrown);
        const again = error.code === "worker_unavailable" && attempt < limits.placement_attempts;
        if (!again) return this.#hasFailed(row, error, signal);
        await clock.sleep(limits.reconcile_ms * attempt, signal);
        continue;
      }
      return timings === null ? endedMeanwhile() : this.#becameReady(row, timings, signal);
    }
  }

  /** The load's timings; null when the signal aborted first. Throws what the load failed with. */
  async #readToReady(
    row: InstanceRow,
    report: (progress: LoadProgress) => void,
    signal: AbortSignal,
  ): Promise<LoadTimings | null> {
    const { fleet, workers } = this.#deps;
    const worker = fleet.addressOf(row);
    if (worker === null) throw new SllmError("worker_unavailable", `Worker ${row.worker_id} is unknown.`);
    for await (const event of workers.load(worker, toLoadRequest(row), signal)) {
      if (event.type === "progress") {
        const { bytes_done, bytes_total, eta_ms } = event;
        report({ bytes_done, bytes_total, eta_ms });
      } else if (event.type === "ready") return event.timings;
      else throw new SllmError(event.error.code, event.error.message);
    }
    return null;
  }

  async #becameReady(row: InstanceRow, timings: LoadTimings, signal: AbortSignal): Promise<LoadOutcome> {
    const { fleet, store, history, clock, log } = this.#deps;
    const { instance_id, model_id } = row;
    const move = { instance_id, from: ["loading"], to: "ready", reason: "loaded" } as const;
    const moved = await writeWhenPossible(clock, signal, () => store.moveInstance(move));
    if (moved) {
      const ready_at = new Date(clock.wallMs());
      fleet.put({ ...row, state: "ready", ready_at });
      fleet.markUsed(instance_id);
    } else {
      await fleet.refresh();
      if (fleet.instance(instance_id)?.state !== "ready") {
        return endedMeanwhile();
      }
    }
    history.succeeded(model_id);
    log.info("instance_ready", {
      instance_id,
      model_id,
      worker_id: row.worker_id,
      load_ms: timings.total_ms,
    });
    return { ok: true, timings };
  }

  async #hasFailed(row: InstanceRow, error: SllmError, signal: AbortSignal): Promise<LoadOutcome> {
    const { fleet, store, history, clock, log } = this.#deps;
    const { instance_id, model_id } = row;
    const told = toldOf(model_id, error);
    const { code, message } = error;
    log.warn("instance_failed", { instance_id, model_id, worker_id: row.worker_id, code, message });
    // A worker that is away says nothing about the model; its next start may go elsewhere at once.
    if (error.code !== "worker_unavailable")
      history.failed(model_id, row.checkpoint, told, clock.monotonicMs(), error.code);
    const move = {
      instance_id,
      from: ["loading"],
      to: "failed",
      reason: code,
      error: { code, message },
    } as const;
    await writeWhenPossible(clock, signal, () => store.moveInstance(move));
    fleet.put({ ...row, state: "failed" });
    return { ok: false, error: told };
  }
}

function endedMeanwhile(): LoadOutcome {
  return { ok: false, error: new SllmError("worker_unavailable", "The instance ended while it was loaded.") };
}

function toLoadRequest(row: InstanceRow): LoadRequest {
  const { instance_id, model_id, checkpoint, device_id, context_tokens, slots, kv_tokens } = row;
  return {
    protocol_version: protocolVersion,
    instance_id,
    model_id,
    checkpoint,
    device_id,
    context_tokens,
    slots,
    ...(kv_tokens === null ? {} : { kv_tokens }),
    ...(row.deterministic ? { deterministic: true } : {}),
    ...(row.adapter_bytes > 0 ? { adapter_bytes: row.adapter_bytes } : {}),
  };
}
