/** The door to generations: admits a request, runs its life, keeps its record. */
import { taskOf } from "../../schema/checkpoint/manifest.ts";
import { SllmError } from "../../schema/error.ts";
import { type CheckpointDigest, type GenerationId, type ModelId, toHex } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { Ticket } from "../admission/ticket.ts";
import type { WaitQueue } from "../admission/wait-queue.ts";
import { isNowhere } from "../placement/adapters.ts";
import type { LearnedEstimates } from "../placement/estimates/learned-estimates.ts";
import { observeGeneration } from "../placement/estimates/observe.ts";
import { findTarget, type Target } from "../placement/find-target.ts";
import type { FleetModel } from "../placement/fleet.ts";
import type { Random } from "../ports.ts";
import { throwIfCancelled } from "./ask.ts";
import { type Drive, type DriverDeps, GenerationDriver } from "./driver.ts";
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
}

/** What a drive is told besides: how it waits for an instance. */
export interface DriveEntry extends RequestEntry {
  readonly model_id: ModelId;
  readonly arrived_ms: number;
}

/** A driver and what it tells once that is read. */
export interface Driven {
  readonly driver: GenerationDriver;
  readonly updates: AsyncGenerator<GenerationUpdate, void>;
}

export class Dispatcher {
  readonly #deps: DispatcherDeps;
  /** Generations that are driven here. */
  readonly #drivers = new Map<GenerationId, GenerationDriver>();

  constructor(deps: DispatcherDeps) {
    this.#deps = deps;
  }

  /** A planned move of what is driven here, or nothing: it is about to hand over to that place. */
  handOver(generation_id: GenerationId, to: NonNullable<Generation["hand_over"]>): void {
    this.#drivers.get(generation_id)?.handOver(to);
  }

  /** The move was given up, and the source goes on. */
  handOverEnded(generation_id: GenerationId): void {
    this.#drivers.get(generation_id)?.handOverEnded();
  }

  newId(): GenerationId {
    return toHex(this.#deps.random.bytes(16));
  }

  /**
   * Begins a generation; it proceeds as its updates are read. Reading throws SllmErrors: `model_not_found`,
   * `adapter_not_found`, `task_unsupported`, `checkpoint_unavailable`, `overloaded`, `too_many_waiting`, `model_loading`,
   * `deadline_unreachable`, `deadline_exceeded`, `generation_lost`, what a load failed with, or the worker's own. Aborting
   * the signal cancels.
   */
  start(request: WorkRequest, entry: RequestEntry, signal: AbortSignal): GenerationRun {
    const generation_id = this.newId();
    return { generation_id, updates: this.#run(generation_id, request, entry, signal) };
  }

  async *#run(
    generation_id: GenerationId,
    asked: WorkRequest,
    entry: RequestEntry,
    signal: AbortSignal,
  ): AsyncGenerator<GenerationUpdate, void> {
    const arrived_ms = this.#deps.clock.monotonicMs();
    const created_at_ms = this.#deps.clock.wallMs();
    const { target, request } = await this.aim(asked);
    const { model_id } = request;
    const run = { arrived_ms, created_at_ms, signal, isShared: false };
    const state = newGeneration(generation_id, model_id, arrived_ms);
    yield* this.drive(
      { ...run, state, request: describe(request, entry, created_at_ms) },
      { ...entry, model_id, arrived_ms },
      target,
    ).updates;
  }

  /** The request with what its `model` was found to be. Throws where there is none, or one for another task. */
  async aim(asked: WorkRequest): Promise<{ target: Target; request: WorkRequest }> {
    const target = await findTarget(this.#deps.fleet, asked.model_id);
    refuseOtherTasks(target.model, asked);
    return { target, request: aimAt(target, asked) };
  }

  /** Sees to one generation, its row included. It proceeds as its updates are read. */
  drive(wanted: Omit<Drive, "hooks">, entry: DriveEntry, target: Target | null): Driven {
    const { clock, records, queue, hold_ms, gateway_id } = this.#deps;
    const { state, created_at_ms } = wanted;
    const { generation_id } = state;
    const { model_id, arrived_ms, deadline_ms: within_ms } = entry;
    const deadline_ms = arrived_ms + Math.min(hold_ms, within_ms ?? hold_ms);
    let ticket: Ticket | null = null;
    const takeTicket = () => {
      const wanted = { generation_id, ...queuedAs(driver.request, entry), arrived_ms, deadline_ms };
      ticket ??= queue.enter({ ...wanted, model_id: driver.request?.model_id ?? model_id });
      return ticket;
    };
    const leave = () => ticket?.leave(clock.monotonicMs());
    let isRecorded = wanted.isShared || !state.is_owner;
    const record = () => {
      if (!isRecorded) records.begin({ generation_id, model_id, created_at_ms, owner: gateway_id });
      isRecorded = true;
    };
    const hooks = { ticket: takeTicket, onPlaced: leave, onUnhurried: record };
    const driver: GenerationDriver = new GenerationDriver(this.#deps, { ...wanted, hooks });
    const end = () => {
      leave();
      record();
    };
    const deadline = { deadline_ms, is_own: within_ms !== null };
    return { driver, updates: this.#live(driver, deadline, { entry, target, takeTicket, end, ...wanted }) };
  }

  async *#live(
    driver: GenerationDriver,
    deadline: { deadline_ms: number; is_own: boolean },
    drive: {
      readonly entry: DriveEntry;
      readonly target: Target | null;
      readonly takeTicket: () => Ticket;
      readonly end: () => void;
      readonly isShared: boolean;
      readonly signal: AbortSignal;
    },
  ): AsyncGenerator<GenerationUpdate, void> {
    const { entry, target, signal, isShared } = drive;
    const { model_id, arrived_ms } = entry;
    const adapter = target?.adapter ?? null;
    if (adapter !== null) await this.#awaitAdapter(adapter.checkpoint, arrived_ms, signal);
    if (target !== null) this.#deps.onArrived(model_id);
    const isNew = driver.state.phase === "queued";
    if (isNew) drive.takeTicket();
    const { generation_id } = driver.state;
    this.#drivers.set(generation_id, driver);
    try {
      yield* driver.run(deadline);
    } finally {
      this.#drivers.delete(generation_id);
      drive.end();
      // What is shared ends in the store when all that it told is written.
      if (!isShared) this.end(driver, entry, adapter?.name);
    }
  }

  /** Writes the row's end, and learns from it. */
  end({ state }: Pick<GenerationDriver, "state">, { tenant, model_id }: DriveEntry, adapter?: string): void {
    const { records, log } = this.#deps;
    const { generation_id } = state;
    const move = toEndMove(state);
    // A reader that left, or lost what it read, ends nothing.
    if (state.is_owner || move.to === "finished") records.end(move);
    this.#learn(state);
    const { worker_id, cold_start, completion_tokens } = move;
    const fields = { generation_id, model_id, adapter, tenant, worker_id, cold_start, completion_tokens };
    log.info("generation", {
      ...fields,
      state: move.to,
      reason: move.reason,
      ttft_ms: move.timeline_ms?.total,
    });
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

  /** Only whole answers of one worker tell how long one takes. */
  #learn({ phase, model_id, prompt_tokens, completion_tokens, instance_id, hops, marks }: Generation): void {
    if (phase !== "finished" || marks.worker === null || instance_id === null || hops.length > 1) return;
    const { fleet, estimates } = this.#deps;
    const instance = fleet.instance(instance_id);
    const kind = instance === null ? null : fleet.deviceKind(instance);
    if (kind === null) return;
    const tokens = [prompt_tokens ?? 0, completion_tokens ?? 0] as const;
    observeGeneration(estimates, model_id, kind, ...tokens, marks.worker);
  }
}

/** With what gateways want to know that meet it at its worker. */
export function describe(
  request: WorkRequest,
  { tenant, priority, deadline_ms }: RequestEntry,
  created_at_ms: number,
): WorkRequest {
  if ("inputs" in request || request.answer === undefined) return request;
  const queued = { priority, ...(deadline_ms === null ? {} : { deadline_ms }) };
  const { model_id, answer } = request;
  return { ...request, origin: { model_id, tenant, created_at_ms, ...answer, ...queued } };
}

/** As its first gateway queued it, where this one has only met it. */
function queuedAs(request: WorkRequest | null, { tenant, priority }: RequestEntry) {
  const origin = request === null || "inputs" in request ? undefined : request.origin;
  return { tenant: origin?.tenant ?? tenant, priority: origin?.priority ?? priority };
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
