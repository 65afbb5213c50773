/** Finds an instance for one request: asks the scheduler, applies what it says, waits as long as that helps. */
import type { InstanceRow } from "../../schema/db/tables.ts";
import { SllmError } from "../../schema/error.ts";
import type { InstanceId, ModelId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { SchedulingPolicy } from "../../schema/vocab.ts";
import type { Ticket } from "../admission/ticket.ts";
import type { WaitQueue } from "../admission/wait-queue.ts";
import { workersWithout } from "../placement/adapters.ts";
import { modelNotFound } from "../placement/find-target.ts";
import type { Fleet, FleetModel } from "../placement/fleet.ts";
import { followerUses, type Load, type Loads } from "../placement/loads.ts";
import { placementRequest, seedFor } from "../placement/placement-request.ts";
import type { StartHistory } from "../placement/start-history.ts";
import type { StartOutcome, Starts } from "../placement/starts.ts";
import type { Clock, Random } from "../ports.ts";
import { decide } from "../scheduler/decide.ts";
import type { Action, Decision } from "../scheduler/decision.ts";
import { type Ask, isRefusal, isVerdict, type Placement, throwIfCancelled } from "./ask.ts";
import { type Clearing, clearFor, idleVictimsOf, type StartAction } from "./clearing.ts";
import type { Explanations } from "./explanations.ts";
import { isDatabaseAway, mayStillBeReported, pauseBeforeAttempt } from "./patience.ts";
import { settlesWithin } from "./settles-within.ts";
import type { WaitingUpdate } from "./updates.ts";
import { heldTooLong, refuseLate, waiting, waitingFor } from "./waiting.ts";

/** How often a waiting reader hears how far things are; a load's first report comes soon after its begin. */
const report_ms = 1_000;
const firstReport_ms = 100;

export interface PlacerDeps {
  readonly fleet: Fleet;
  readonly starts: Starts;
  readonly loads: Loads;
  readonly history: StartHistory;
  readonly clock: Clock;
  readonly queue: WaitQueue;
  readonly explanations: Pick<Explanations, "note">;
  readonly random: Random;
  readonly policy: SchedulingPolicy;
  /** Without one nothing is moved away, and the policy must be a live one. */
  readonly clearing?: Clearing;
  /** How often a waiting reader hears how far things are; every second if left out. */
  readonly report_ms?: number;
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
    throw modelNotFound(model_id);
  }

  /**
   * Yields while it waits, returns the placement. Throws what the decision or a load failed with,
   * `model_loading` or `deadline_exceeded` past the deadline, `cancelled` when the client left.
   */
  async *place(ask: Ask): Waiting<Placement> {
    const { clock, loads, explanations } = this.#deps;
    let refusals = 0;
    let isFresh = false;
    let avoid = ask.avoid;
    for (;;) {
      throwIfCancelled(ask.signal);
      const model = await this.findModel(ask.model_id);
      const decision = this.#decide(model, ask, avoid);
      const { action, reason } = decision;
      explanations.note(ask.ticket.request.generation_id, clock.wallMs(), decision);
      if (isRefusal(action) && avoid !== avoidNothing && ask.failed_attempts > 0) {
        yield* this.#pause(pauseBeforeAttempt(ask.failed_attempts), ask);
        avoid = avoidNothing;
        continue;
      }
      if (isVerdict(action) && !isFresh) {
        isFresh = yield* this.#readAnew(ask);
        continue;
      }
      if (action.kind === "use" && this.#isNext(ask)) {
        return { ...this.#take(this.#live(action.instance_id), ask.ticket), cold_start: false, load: null };
      }
      this.#note(ask, decision);
      refuseLate(decision, ask, clock.monotonicMs());
      switch (action.kind) {
        case "use":
        case "queue":
          yield* this.#holdForTurn(ask);
          break;
        case "wait": {
          const instance = this.#live(action.instance_id);
          const placement = yield* this.#joinLoad(instance, loads.follow(instance), ask);
          if (placement !== null) return placement;
          break;
        }
        case "start":
        case "reclaim":
        case "migrate":
        case "preempt": {
          const started = yield* this.#begin(model, action, ask);
          if (started !== "refused" && started !== null) return started;
          if (started === "refused") refusals += 1;
          // The fleet is fresh after a refusal; only repeated ones mean a race that time must settle.
          if (started === "refused" && refusals > 1) yield* this.#pause(limits.reconcile_ms, ask);
          break;
        }
        case "hold":
          yield* this.#holdForDevice(action, ask);
          break;
        case "cannot_ever":
          if (!mayStillBeReported(action.code, clock.monotonicMs() - ask.arrived_ms))
            throw new SllmError(action.code, reason);
          yield* this.#pause(limits.reconcile_ms, ask);
          break;
        default:
          throw new SllmError(action.code, reason, { retry_after_ms: report_ms });
      }
    }
  }

  /** "refused" when another gateway was faster; null when its turn has to be waited for. */
  async *#begin(model: FleetModel, action: StartAction, ask: Ask): Waiting<Placement | "refused" | null> {
    const outcome = yield* this.#start(model, action, ask);
    return outcome.created ? yield* this.#joinLoad(outcome.instance, outcome.load, ask) : "refused";
  }

  async *#start(model: FleetModel, action: StartAction, ask: Ask): Waiting<StartOutcome> {
    const { starts, clock, history, clearing = null } = this.#deps;
    const { model_id, checkpoint } = model.row;
    const wait_ms = history.admit(model_id, checkpoint, clock.monotonicMs());
    if (wait_ms > 0) {
      ask.ticket.note({ state: "queued", reason: "waits to start again what was ended", due_ms: null });
      yield* this.#pause(wait_ms, ask);
      return { created: false };
    }
    const clear = clearFor(action, clearing);
    const starting = starts.start(model, action.target, idleVictimsOf(action), clear);
    try {
      return yield* this.#hold(starting, () => waiting("loading", ask.ticket, clock.monotonicMs()), ask);
    } catch (error) {
      const left_ms = ask.deadline.deadline_ms - clock.monotonicMs();
      if (!isDatabaseAway(error) || left_ms <= limits.reconcile_ms) throw error;
      ask.ticket.note({ state: "queued", reason: "waits for the database", due_ms: null });
      yield* this.#pause(limits.reconcile_ms, ask);
      return { created: false };
    }
  }

  /**
   * Nothing is refused by what was known a moment ago: a worker may have come since the last read. True once there is
   * nothing newer to know; what is known has to do while the database is away.
   */
  async *#readAnew(ask: Ask): Waiting<true> {
    const { fleet, clock } = this.#deps;
    const reading = fleet.refresh().catch((error: unknown) => {
      if (!isDatabaseAway(error)) throw error;
    });
    yield* this.#hold(reading, () => waiting("queued", ask.ticket, clock.monotonicMs()), ask);
    return true;
  }

  #decide(model: FleetModel, { ticket, adapter }: Ask, avoid: Ask["avoid"]): Decision {
    const { fleet, queue, policy, random, clock, clearing } = this.#deps;
    const request = placementRequest(model, {
      may_migrate: clearing !== undefined,
      ...(adapter === null ? {} : { unfit: workersWithout(fleet.view(), adapter) }),
      ...{ avoid, policy, seed: seedFor(policy, random) },
      claims: queue.claims.all,
      waiting_ahead: queue.aheadOf(ticket),
      rivals: queue.rivalsOf(model.row.model_id),
      now_ms: clock.wallMs(),
    });
    return decide(fleet.view(), request);
  }

  /** Nobody of the model's line goes before it. */
  #isNext({ ticket }: Ask): boolean {
    return this.#deps.queue.aheadOf(ticket) === 0;
  }

  /** Waits with a slot of the loading instance taken; null when all are, or others are before it: it waited its turn. */
  async *#joinLoad(loading: InstanceRow, load: Load, ask: Ask): Waiting<Placement | null> {
    if (this.#hasRoom(loading) && this.#isNext(ask)) return yield* this.#awaitLoad(loading, load, ask);
    const { state } = ask.ticket;
    if (state !== null) ask.ticket.note({ ...state, state: "queued" });
    yield* this.#holdForTurn(ask);
    return null;
  }

  /** What waits for a slot waits here, where priorities and tenants count, and not in the engine. */
  #hasRoom({ instance_id, state, slots }: InstanceRow): boolean {
    const followers = state === "loading" ? followerUses : 0;
    return this.#deps.fleet.inFlight(instance_id) - followers < slots;
  }

  #note({ ticket }: Ask, { action, reason, estimate_ms }: Decision): void {
    const begins = action.kind === "wait" || "target" in action;
    const state = begins ? "loading" : "queued";
    const due_ms = estimate_ms === null ? null : this.#deps.clock.monotonicMs() + estimate_ms;
    ticket.note({ state, reason, due_ms });
  }

  /** Stands in line until something changed and it is the first there. */
  async *#holdForTurn(ask: Ask): Waiting<void> {
    const { queue, clock } = this.#deps;
    yield* this.#hold(queue.turn(ask.ticket), () => waiting("queued", ask.ticket, clock.monotonicMs()), ask);
  }

  /**
   * Waits until something changed. Work of others that keeps the device busy beyond the bound makes room then: none of
   * it is stopped, but nothing new of other models begins there.
   */
  async *#holdForDevice(device: Extract<Action, { kind: "hold" }>, ask: Ask): Waiting<void> {
    const { queue, clock, fleet } = this.#deps;
    if (device.until === "link") return yield* this.#holdForTurn(ask);
    const claim_ms = queue.claimWhenDue(ask.ticket, device, fleet.view().device_count);
    const again = new AbortController();
    const leave = () => again.abort();
    ask.signal.addEventListener("abort", leave, { once: true });
    if (ask.signal.aborted) leave();
    const news = [queue.turn(ask.ticket)];
    if (claim_ms > 0) news.push(clock.sleep(claim_ms, again.signal));
    try {
      yield* this.#hold(Promise.race(news), () => waiting("queued", ask.ticket, clock.monotonicMs()), ask);
    } finally {
      ask.signal.removeEventListener("abort", leave);
      again.abort();
    }
  }

  #live(instance_id: InstanceId): InstanceRow {
    const instance = this.#deps.fleet.instance(instance_id);
    if (instance === null) throw new Error(`the scheduler chose ${instance_id}, which is not live`);
    return instance;
  }

  /** The next in line looks for an instance from now on. */
  #take(instance: InstanceRow, ticket: Ticket): Pick<Placement, "instance" | "use" | "lost"> {
    const lost = new AbortController();
    const use = this.#deps.fleet.acquire(instance.instance_id, () => lost.abort());
    ticket.stepOut();
    return { instance, use, lost };
  }

  /**
   * Waits for a load with the instance in use already: what was loaded for this request cannot be reclaimed before
   * the request is served. null when the instance went away without a failure worth telling.
   */
  async *#awaitLoad(loading: InstanceRow, load: Load, ask: Ask): Waiting<Placement | null> {
    const { clock } = this.#deps;
    const taken = this.#take(loading, ask.ticket);
    ask.onLoadAwaited(loading);
    let placed = false;
    try {
      const report = () => waitingFor(load, ask.ticket, clock.monotonicMs());
      const outcome = yield* this.#hold(load.outcome, report, ask);
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
    let pause_ms = Math.max(firstReport_ms, this.#deps.report_ms ?? 0);
    for (;;) {
      const update = report();
      yield update;
      const left_ms = ask.deadline.deadline_ms - clock.monotonicMs();
      if (left_ms <= 0) throw heldTooLong(ask, update);
      if (await settlesWithin(done, clock, Math.min(left_ms, pause_ms), ask.signal)) return done;
      throwIfCancelled(ask.signal);
      pause_ms = this.#deps.report_ms ?? report_ms;
    }
  }

  async *#pause(delay_ms: number, ask: Ask): Waiting<void> {
    const { clock } = this.#deps;
    const over = clock.sleep(delay_ms, ask.signal);
    yield* this.#hold(over, () => waiting("queued", ask.ticket, clock.monotonicMs()), ask);
  }
}

function heardElsewhere(): void {}
