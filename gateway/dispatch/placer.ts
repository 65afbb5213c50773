/** Finds an instance for one request: asks the scheduler, applies what it says, waits as long as that helps. */
import type { LoadTimings } from "../../schema/cluster/instances.ts";
import type { InstanceRow } from "../../schema/db/tables.ts";
import { SllmError } from "../../schema/error.ts";
import type { InstanceId, ModelId, WorkerId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { livePolicies } from "../../schema/vocab.ts";
import type { DeviceAt, Ticket, WaitQueue } from "../admission/wait-queue.ts";
import type { Fleet, FleetModel } from "../placement/fleet.ts";
import type { InstanceUse } from "../placement/instance-uses.ts";
import type { Load, Loads } from "../placement/loads.ts";
import type { StartHistory } from "../placement/start-history.ts";
import { bookedBytes, type StartOutcome, type Starts } from "../placement/starts.ts";
import type { Clock, Random } from "../ports.ts";
import { decide } from "../scheduler/decide.ts";
import type { Action, Decision } from "../scheduler/decision.ts";
import type { Explanations } from "./explanations.ts";
import { isDatabaseAway, mayStillBeReported, pauseBeforeAttempt } from "./patience.ts";
import { settlesWithin } from "./settles-within.ts";
import type { WaitingUpdate } from "./updates.ts";
import { heldTooLong, waiting, waitingFor } from "./waiting.ts";

/** How often a waiting reader hears how far things are; a load's first report comes soon after its begin. */
const report_ms = 1_000;
const firstReport_ms = 100;

export interface Ask {
  readonly model_id: ModelId;
  /** Aborts when the client has left. */
  readonly signal: AbortSignal;
  /** On the monotonic clock: when the request came, and when waiting is given up. */
  readonly arrived_ms: number;
  readonly deadline_ms: number;
  readonly ticket: Ticket;
  /** Attempts at hosts that failed before this one. */
  readonly failed_attempts: number;
  /** Hosts that failed this request; taken again, after a pause, only when there is no other. */
  readonly avoid: { readonly workers: ReadonlySet<WorkerId>; readonly instances: ReadonlySet<InstanceId> };
  /** Told whenever the request begins to wait for the load of an instance. */
  readonly onLoadAwaited: (instance: InstanceRow) => void;
}

/** An instance taken into use for the request. Whoever gets it releases the use. */
export interface Placement {
  readonly instance: InstanceRow;
  readonly use: InstanceUse;
  /** Aborted when the instance ends before the use is released. */
  readonly lost: AbortController;
  readonly cold_start: boolean;
  readonly load: LoadTimings | null;
}

export interface PlacerDeps {
  readonly fleet: Fleet;
  readonly starts: Starts;
  readonly loads: Loads;
  readonly history: StartHistory;
  readonly clock: Clock;
  readonly queue: WaitQueue;
  readonly explanations: Explanations;
  readonly random: Random;
  readonly policy: (typeof livePolicies)[number];
}

type Waiting<T> = AsyncGenerator<WaitingUpdate, T>;

const avoidNothing: Ask["avoid"] = { workers: new Set(), instances: new Set() };

export class Placer {
  readonly #deps: PlacerDeps;

  constructor(deps: PlacerDeps) {
    this.#deps = deps;
  }

  /** The model if it takes requests; throws `model_not_found`. Reads the store only for names unknown here. */
  async findModel(model_id: ModelId): Promise<FleetModel> {
    const model = await this.#deps.fleet.findActiveModel(model_id);
    if (model !== null) return model;
    throw new SllmError("model_not_found", `The model '${model_id}' is not deployed.`, { param: "model" });
  }

  /**
   * Yields while it waits, returns the placement. Throws what the decision or a load failed with,
   * `model_loading` or `deadline_exceeded` past the deadline, `cancelled` when the client left.
   */
  async *place(ask: Ask): Waiting<Placement> {
    const { clock, loads, explanations } = this.#deps;
    let refusals = 0;
    let avoid = ask.avoid;
    for (;;) {
      throwIfCancelled(ask.signal);
      const model = await this.findModel(ask.model_id);
      const decision = this.#decide(model, avoid);
      const { action, reason } = decision;
      explanations.note(ask.ticket.request.generation_id, clock.wallMs(), decision);
      if (isRefusal(action) && avoid !== avoidNothing && ask.failed_attempts > 0) {
        yield* this.#pause(pauseBeforeAttempt(ask.failed_attempts), ask);
        avoid = avoidNothing;
        continue;
      }
      if (action.kind === "use" || action.kind === "queue") {
        return { ...this.#take(this.#live(action.instance_id)), cold_start: false, load: null };
      }
      this.#note(ask, decision);
      switch (action.kind) {
        case "wait": {
          const instance = this.#live(action.instance_id);
          const placement = yield* this.#awaitLoad(instance, loads.follow(instance), ask);
          if (placement !== null) return placement;
          break;
        }
        case "start":
        case "reclaim": {
          const outcome = yield* this.#start(model, action, ask);
          if (outcome.created) {
            const placement = yield* this.#awaitLoad(outcome.instance, outcome.load, ask);
            if (placement !== null) return placement;
            break;
          }
          refusals += 1;
          // The fleet is fresh after a refusal; only repeated ones mean a race that time must settle.
          if (refusals > 1) yield* this.#pause(limits.reconcile_ms, ask);
          break;
        }
        case "hold":
          yield* this.#holdForDevice(action, ask);
          break;
        case "cannot_now":
          throw new SllmError(action.code, reason, { retry_after_ms: report_ms });
        case "cannot_ever":
          if (!mayStillBeReported(action.code, clock.monotonicMs() - ask.arrived_ms)) {
            throw new SllmError(action.code, reason);
          }
          yield* this.#pause(limits.reconcile_ms, ask);
          break;
        case "migrate":
        case "preempt":
          // No live policy may choose them, and moves are not asked for.
          throw new Error(`the scheduler chose to ${action.kind}`);
      }
    }
  }

  async *#start(
    model: FleetModel,
    action: Extract<Action, { kind: "start" | "reclaim" }>,
    ask: Ask,
  ): Waiting<StartOutcome> {
    const { starts, clock } = this.#deps;
    this.#refuseWhileBackingOff(model);
    const victims = action.kind === "reclaim" ? action.victims : [];
    const starting = starts.start(model, action.target, victims);
    try {
      return yield* this.#hold(starting, () => waiting("loading", ask.ticket, clock.monotonicMs()), ask);
    } catch (error) {
      const left_ms = ask.deadline_ms - clock.monotonicMs();
      if (!isDatabaseAway(error) || left_ms <= limits.reconcile_ms) throw error;
      ask.ticket.note({ state: "queued", reason: "waits for the database", due_ms: null });
      yield* this.#pause(limits.reconcile_ms, ask);
      return { created: false };
    }
  }

  #decide(model: FleetModel, avoid: Ask["avoid"]): Decision {
    const { model_id, checkpoint } = model.row;
    const { weights_bytes } = model.facts;
    const { fleet, queue, policy, random, clock } = this.#deps;
    return decide(fleet.view(), {
      ...{ model_id, checkpoint, weights_bytes, memory_bytes: bookedBytes(model), avoid, policy },
      max_instances: Number.POSITIVE_INFINITY,
      claims: queue.claims,
      seed: policy === "random" ? seedFrom(random) : 0,
      may_migrate: false,
      now_ms: clock.wallMs(),
    });
  }

  #note({ ticket }: Ask, { action, reason, estimate_ms }: Decision): void {
    const state = isRefusal(action) ? "queued" : "loading";
    const due_ms = estimate_ms === null ? null : this.#deps.clock.monotonicMs() + estimate_ms;
    ticket.note({ state, reason, due_ms });
  }

  /**
   * Waits until something changed. Work of others that keeps the device busy beyond the bound makes room then: none of
   * it is stopped, but nothing new of other models begins there.
   */
  async *#holdForDevice(device: DeviceAt, ask: Ask): Waiting<void> {
    const { fleet, queue, clock } = this.#deps;
    const claim_ms = queue.mayClaimFrom(ask.ticket, device) - clock.monotonicMs();
    if (claim_ms <= 0) queue.claim(ask.ticket, device);
    const again = new AbortController();
    const leave = () => again.abort();
    ask.signal.addEventListener("abort", leave, { once: true });
    if (ask.signal.aborted) leave();
    const news = [fleet.changed(again.signal)];
    if (claim_ms > 0) news.push(clock.sleep(claim_ms, again.signal));
    try {
      yield* this.#hold(Promise.race(news), () => waiting("queued", ask.ticket, clock.monotonicMs()), ask);
    } finally {
      ask.signal.removeEventListener("abort", leave);
      again.abort();
    }
  }

  #refuseWhileBackingOff(model: FleetModel): void {
    const { history, clock } = this.#deps;
    const refusal = history.refusal(model.row.model_id, model.row.checkpoint, clock.monotonicMs());
    if (refusal !== null) throw refusal;
  }

  #live(instance_id: InstanceId): InstanceRow {
    const instance = this.#deps.fleet.instance(instance_id);
    if (instance === null) throw new Error(`the scheduler chose ${instance_id}, which is not live`);
    return instance;
  }

  #take(instance: InstanceRow): Pick<Placement, "instance" | "use" | "lost"> {
    const lost = new AbortController();
    const use = this.#deps.fleet.acquire(instance.instance_id, () => lost.abort());
    return { instance, use, lost };
  }

  /**
   * Waits for a load with the instance in use already: what was loaded for this request cannot be reclaimed before
   * the request is served. null when the instance went away without a failure worth telling.
   */
  async *#awaitLoad(loading: InstanceRow, load: Load, ask: Ask): Waiting<Placement | null> {
    const { clock } = this.#deps;
    const taken = this.#take(loading);
    ask.onLoadAwaited(loading);
    let placed = false;
    try {
      const outcome = yield* this.#hold(
        load.outcome,
        () => waitingFor(load, ask.ticket, clock.monotonicMs()),
        ask,
      );
      if (!outcome.ok) throw outcome.error;
      const instance = this.#deps.fleet.instance(loading.instance_id);
      if (instance?.state !== "ready") return null;
      placed = true;
      return { ...taken, instance, cold_start: true, load: outcome.timings };
    } finally {
      if (!placed) taken.use.release();
    }
  }

  /** Waits for `done`, reporting at once and then about every second; throws at the deadline or a cancel. */
  async *#hold<T>(done: Promise<T>, report: () => WaitingUpdate, ask: Ask): Waiting<T> {
    const { clock } = this.#deps;
    // Its failure is thrown below; a reader that leaves before that must not make it an unhandled one.
    done.catch(heardElsewhere);
    let pause_ms = firstReport_ms;
    for (;;) {
      const update = report();
      yield update;
      const left_ms = ask.deadline_ms - clock.monotonicMs();
      if (left_ms <= 0) throw heldTooLong(ask.model_id, update);
      if (await settlesWithin(done, clock, Math.min(left_ms, pause_ms), ask.signal)) return done;
      throwIfCancelled(ask.signal);
      pause_ms = report_ms;
    }
  }

  async *#pause(delay_ms: number, ask: Ask): Waiting<void> {
    const { clock } = this.#deps;
    const over = clock.sleep(delay_ms, ask.signal);
    yield* this.#hold(over, () => waiting("queued", ask.ticket, clock.monotonicMs()), ask);
  }
}

function seedFrom(random: Random): number {
  return random.bytes(4).reduce((seed, byte) => seed * 256 + byte, 0);
}

function isRefusal(action: Action): boolean {
  return action.kind === "hold" || action.kind === "cannot_now" || action.kind === "cannot_ever";
}

export function throwIfCancelled(signal: AbortSignal): void {
  if (signal.aborted) throw new SllmError("cancelled", "The client closed the request.");
}

function heardElsewhere(): void {}
