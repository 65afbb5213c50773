/** The door to generations: admits a request, runs its life, keeps its record. */
import { taskOf } from "../../schema/checkpoint/manifest.ts";
import { SllmError } from "../../schema/error.ts";
import { type CheckpointDigest, type ModelId, toHex } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { WaitQueue } from "../admission/wait-queue.ts";
import { isNowhere } from "../placement/adapters.ts";
import type { LearnedEstimates } from "../placement/estimates/learned-estimates.ts";
import { observeGeneration } from "../placement/estimates/observe.ts";
import { findTarget, type Target } from "../placement/find-target.ts";
import type { FleetModel } from "../placement/fleet.ts";
import type { Random } from "../ports.ts";
import { throwIfCancelled } from "./ask.ts";
import { type DriverDeps, GenerationDriver } from "./driver.ts";
import { toEndMove } from "./end-record.ts";
import { type Generation, newGeneration } from "./generation.ts";
import { mayStillBeReported } from "./patience.ts";
import type { GenerationRecords } from "./records.ts";
import {
  type GenerationRun,
  type GenerationUpdate,
  type RequestEntry,
  taskOfRequest,
  type WorkRequest,
} from "./updates.ts";

export interface DispatcherDeps extends DriverDeps {
  readonly records: GenerationRecords;
  readonly queue: WaitQueue;
  readonly estimates: Pick<LearnedEstimates, "observe">;
  readonly random: Random;
  /** Told of every request for a deployed model. */
  readonly onArrived: (model_id: ModelId) => void;
  /** How long a request may wait for an instance, in milliseconds. */
  readonly hold_ms: number;
}

export class Dispatcher {
  readonly #deps: DispatcherDeps;

  constructor(deps: DispatcherDeps) {
    this.#deps = deps;
  }

  /**
   * Begins a generation; it proceeds as its updates are read. Reading throws SllmErrors: `model_not_found`,
   * `adapter_not_found`, `task_unsupported`, `checkpoint_unavailable`, `overloaded`, `too_many_waiting`, `model_loading`,
   * `deadline_unreachable`, `deadline_exceeded`, what a load failed with, or the worker's own. Aborting the signal cancels.
   */
  start(request: WorkRequest, entry: RequestEntry, signal: AbortSignal): GenerationRun {
    const generation_id = toHex(this.#deps.random.bytes(16));
    return { generation_id, updates: this.#run(generation_id, request, entry, signal) };
  }

  async *#run(
    generation_id: string,
    asked: WorkRequest,
    { tenant, priority, deadline_ms: within_ms }: RequestEntry,
    signal: AbortSignal,
  ): AsyncGenerator<GenerationUpdate, void> {
    const { clock, fleet, records, queue, hold_ms, log } = this.#deps;
    const arrived_ms = clock.monotonicMs();
    const target = await findTarget(fleet, asked.model_id);
    refuseOtherTasks(target.model, asked);
    const request = aimAt(target, asked);
    const { model_id } = request;
    if (target.adapter !== null) await this.#awaitAdapter(target.adapter.checkpoint, arrived_ms, signal);
    this.#deps.onArrived(model_id);
    const deadline_ms = arrived_ms + Math.min(hold_ms, within_ms ?? hold_ms);
    const waiting = { generation_id, model_id, tenant, priority, arrived_ms, deadline_ms };
    const ticket = queue.enter(waiting);
    const leave = () => ticket.leave(clock.monotonicMs());
    const created_at_ms = clock.wallMs();
    let isRecorded = false;
    const record = () => {
      if (!isRecorded) records.begin({ generation_id, model_id, created_at_ms });
      isRecorded = true;
    };
    const state = newGeneration(generation_id, model_id, arrived_ms);
    const hooks = { ticket, onPlaced: leave, onUnhurried: record };
    const driver = new GenerationDriver(this.#deps, state, request, signal, hooks);
    try {
      yield* driver.run({ deadline_ms, is_own: within_ms !== null });
    } finally {
      leave();
      record();
      const move = toEndMove(driver.state);
      records.end(move);
      this.#learn(driver.state);
      const { worker_id, cold_start, completion_tokens } = move;
      const adapter = target.adapter?.name;
      const fields = { generation_id, model_id, adapter, tenant, worker_id, cold_start, completion_tokens };
      log.info("generation", {
        ...fields,
        state: move.to,
        reason: move.reason,
        ttft_ms: move.timeline_ms?.total,
      });
    }
  }

  /**
   * An adapter that was added a moment ago is in the next report of its worker. Waited for before the request stands in
   * its model's line, where it would hold up others.
   */
  async #awaitAdapter(checkpoint: CheckpointDigest, arrived_ms: number, signal: AbortSignal): Promise<void> {
    const { fleet, clock } = this.#deps;
    while (isNowhere(fleet.view(), checkpoint)) {
      throwIfCancelled(signal);
      if (!mayStillBeReported("checkpoint_unavailable", clock.monotonicMs() - arrived_ms)) {
        throw new SllmError("checkpoint_unavailable", "No connected worker has the adapter's checkpoint.");
      }
      await clock.sleep(limits.reconcile_ms, signal);
    }
  }

  /** Only whole answers tell how long one takes. */
  #learn({ phase, model_id, prompt_tokens, completion_tokens, instance_id, marks }: Generation): void {
    if (phase !== "finished" || marks.worker === null || instance_id === null) return;
    const { fleet, estimates } = this.#deps;
    const instance = fleet.instance(instance_id);
    const kind = instance === null ? null : fleet.deviceKind(instance);
    if (kind === null) return;
    const tokens = [prompt_tokens ?? 0, completion_tokens ?? 0] as const;
    observeGeneration(estimates, model_id, kind, ...tokens, marks.worker);
  }
}

/** The request with what its `model` was found to be. */
function aimAt({ model, adapter }: Target, asked: WorkRequest): WorkRequest {
  const { model_id } = model.row;
  if (adapter === null || "inputs" in asked) return { ...asked, model_id };
  return { ...asked, model_id, adapter: adapter.checkpoint };
}

/** A model that cannot do this need not be started to say so. */
function refuseOtherTasks({ row, facts }: FleetModel, request: WorkRequest): void {
  const [task, wanted] = [taskOf(facts.model), taskOfRequest(request)];
  if (task === wanted) return;
  const message = `The task of the model '${row.model_id}' is '${task}', not '${wanted}'.`;
  throw new SllmError("task_unsupported", message, { param: "model" });
}
