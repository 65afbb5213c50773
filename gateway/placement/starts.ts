/**
 * Applies a decision to start: makes room, books memory in the store for a new or a parked instance, begins the load.
 * One at a time per model.
 */
import type { LoadTimings } from "../../schema/cluster/instances.ts";
import type { InstanceRow } from "../../schema/db/tables.ts";
import { type InstanceId, type ModelId, toHex } from "../../schema/ids.ts";
import { bookedAdapterBytes, instanceMemoryBytes } from "../../schema/memory.ts";
import type { Clock, CreateInstanceResult, Log, Random, StateStore } from "../ports.ts";
import type { StartTarget } from "../scheduler/decision.ts";
import type { LearnedEstimates } from "./estimates/learned-estimates.ts";
import { observeStart, startHowOf } from "./estimates/observe.ts";
import type { Fleet, FleetModel } from "./fleet.ts";
import type { Load, Loads } from "./loads.ts";
import type { Stops } from "./stops.ts";

export type StartOutcome =
  | { readonly created: true; readonly instance: InstanceRow; readonly load: Load }
  /** The cluster was not as the decision assumed; what is different is known by now. */
  | { readonly created: false };

export interface StartsDeps {
  readonly fleet: Fleet;
  readonly store: Pick<StateStore, "createInstance" | "moveInstance">;
  readonly loads: Loads;
  readonly stops: Stops;
  readonly estimates: Pick<LearnedEstimates, "observe">;
  readonly random: Random;
  readonly clock: Pick<Clock, "wallMs">;
  readonly log: Log;
}

/** Memory that a new instance of the model books, with what its adapters may need, on a device that repacks or not. */
export function bookedBytes({ facts, row, adapters }: FleetModel, repacks: boolean): number {
  const adapter_bytes = bookedAdapterBytes(adapters);
  return instanceMemoryBytes(facts.model, facts.weights_bytes, { ...row, adapter_bytes, repacks });
}

/** `changed`: the instance is not parked any more, or its memory is not free. */
type BookResult = CreateInstanceResult | { readonly ok: false; readonly reason: "changed" };

export class Starts {
  readonly #deps: StartsDeps;
  readonly #running = new Map<ModelId, Promise<StartOutcome>>();

  constructor(deps: StartsDeps) {
    this.#deps = deps;
  }

  /**
   * Starts an instance of the model after stopping the victims, and before that `clear` where work has to leave. While
   * one call for the model runs, further calls join it whatever they wanted: they decide again afterwards, on what it has
   * changed.
   */
  start(
    model: FleetModel,
    target: StartTarget,
    victims: readonly InstanceId[],
    clear: (() => Promise<boolean>) | null = null,
  ): Promise<StartOutcome> {
    const { model_id } = model.row;
    const running = this.#running.get(model_id);
    if (running !== undefined) return running;
    const start = this.#start(model, target, victims, clear).finally(() => this.#running.delete(model_id));
    this.#running.set(model_id, start);
    return start;
  }

  async #start(
    model: FleetModel,
    target: StartTarget,
    victims: readonly InstanceId[],
    clear: (() => Promise<boolean>) | null,
  ): Promise<StartOutcome> {
    const { fleet, loads, clock, log } = this.#deps;
    if (clear !== null && !(await clear())) return { created: false };
    if (!(await this.#makeRoom(victims, `makes room for ${model.row.model_id}`))) return { created: false };
    const { worker_id, device_id, tier, parked } = target;
    const result = parked === null ? await this.#book(model, target) : await this.#bookAgain(model, parked);
    const { model_id } = model.row;
    if (!result.ok) {
      log.info("start_refused", { model_id, worker_id, device_id, reason: result.reason });
      await fleet.refresh();
      return { created: false };
    }
    const event = parked === null ? "start" : "resume";
    log.info(event, { model_id, instance_id: result.instance.instance_id, worker_id, device_id, tier });
    fleet.put(result.instance);
    const now_ms = clock.wallMs();
    const arrives_at_ms = target.arrival_ms > 0 ? now_ms + target.arrival_ms : null;
    const is_fetched = tier === "peer" || tier === "origin";
    const { instance_id } = result.instance;
    fleet.expectReady(instance_id, now_ms + target.estimate_ms, arrives_at_ms, is_fetched);
    const load = loads.follow(result.instance);
    void load.outcome.then((outcome) => {
      if (outcome.ok && outcome.timings !== null) this.#learn(model_id, target, outcome.timings);
    });
    return { created: true, instance: result.instance, load };
  }

  #learn(model_id: ModelId, target: StartTarget, timings: LoadTimings): void {
    const { fleet, estimates, log } = this.#deps;
    const { worker_id, tier, estimate_ms, queued_ms, is_beside } = target;
    const kind = fleet.deviceKind(target);
    if (kind === null) return;
    observeStart(estimates, model_id, target, kind, timings);
    const expected = { tier, estimate_ms, queued_ms, is_beside };
    const how = startHowOf(target.parked, timings);
    log.info("start_estimated", { model_id, worker_id, how, ...expected, actual_ms: timings.total_ms });
  }

  /** Takes a parked instance back into service; it has the settings it was started with. */
  async #bookAgain(model: FleetModel, instance_id: InstanceId): Promise<BookResult> {
    const { fleet, store } = this.#deps;
    const row = fleet.instance(instance_id);
    if (row === null) return { ok: false, reason: "changed" };
    const { facts } = model;
    const settings = { ...row, repacks: fleet.repacks(row) };
    const memory_bytes = instanceMemoryBytes(facts.model, facts.weights_bytes, settings);
    const move = { instance_id, from: ["parked"], to: "loading", reason: "wanted", memory_bytes } as const;
    if (!(await store.moveInstance(move))) return { ok: false, reason: "changed" };
    return { ok: true, instance: { ...row, state: "loading", memory_bytes } };
  }

  /** Stops the victims together; false when one of them turned out to be needed. */
  async #makeRoom(victims: readonly InstanceId[], reason: string): Promise<boolean> {
    const { fleet, stops } = this.#deps;
    const rows = victims.map((instance_id) => fleet.instance(instance_id)).filter((row) => row !== null);
    const outcomes = await Promise.all(rows.map((row) => stops.stop(row, reason)));
    return outcomes.every((outcome) => outcome === "gone");
  }

  #book(model: FleetModel, target: StartTarget): Promise<CreateInstanceResult> {
    const { fleet, store, random } = this.#deps;
    const { model_id, checkpoint, context_tokens, slots, kv_tokens, deterministic } = model.row;
    return store.createInstance({
      instance_id: `i-${toHex(random.bytes(8))}`,
      model_id,
      checkpoint,
      worker_id: target.worker_id,
      device_id: target.device_id,
      context_tokens,
      slots,
      kv_tokens,
      deterministic,
      adapter_bytes: bookedAdapterBytes(model.adapters),
      memory_bytes: bookedBytes(model, fleet.repacks(target)),
      expected_live: fleet.instancesOf(model_id).length,
    });
  }
}
