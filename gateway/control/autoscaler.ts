/**
 * Starts instances before requests have to ask for each: the minimum of every model, what a mean demand needs, and
 * several at once for a burst. What to do is decided by scheduler/scale.ts; what idles is stopped by choose-stops.ts.
 *
 * Every gateway looks after those that wait in its own queue. Minimums and targets of the whole cluster are the leader's.
 */
import type { InstanceRow } from "../../schema/db/tables.ts";
import type { ModelId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { SchedulingPolicy } from "../../schema/vocab.ts";
import type { Fleet, FleetModel } from "../placement/fleet.ts";
import { followerUses } from "../placement/loads.ts";
import { placementRequest, seedFor } from "../placement/placement-request.ts";
import type { StartHistory } from "../placement/start-history.ts";
import type { Starts } from "../placement/starts.ts";
import type { WorkerReports } from "../placement/worker-reports.ts";
import type { Clock, Log, Random } from "../ports.ts";
import { scaleOut_ms } from "../scheduler/decide.ts";
import { decideStart, type PlannedStart } from "../scheduler/decide-start.ts";
import { forgettingMean, type Scale, scaleTo } from "../scheduler/scale.ts";
import type { Rivals } from "../scheduler/view.ts";

/** Who waits at this gateway. */
export interface Line {
  /** Requests for the model that have no instance. */
  waitingFor(model_id: ModelId): number;
  /** Who waits for other models. */
  rivalsOf(model_id: ModelId): Rivals;
  /** Devices that starved models shall have next. */
  readonly claims: { readonly all: ReadonlyMap<string, ModelId> };
}

export interface AutoscalerDeps {
  readonly fleet: Fleet;
  readonly starts: Starts;
  readonly queue: Line;
  readonly history: StartHistory;
  readonly reports: Pick<WorkerReports, "of">;
  readonly policy: SchedulingPolicy;
  readonly random: Random;
  readonly clock: Pick<Clock, "monotonicMs" | "wallMs">;
  readonly log: Log;
  /** Whether this gateway looks after the cluster as a whole, among several. */
  readonly isLeader: () => boolean;
}

/** Time over which demand is averaged: an answer or two, so that a start follows what lasts. */
const demandTime_ms = 5_000;

const avoidNothing = { workers: new Set<string>(), instances: new Set<string>() };

interface Demand {
  readonly mean: number;
  readonly at_ms: number;
}

export class Autoscaler {
  readonly #deps: AutoscalerDeps;
  readonly #demands = new Map<ModelId, Demand>();
  readonly #scaling = new Map<ModelId, Promise<void>>();

  constructor(deps: AutoscalerDeps) {
    this.#deps = deps;
  }

  /** Begins what is due without waiting for it. */
  turn(): void {
    const models = this.#deps.fleet.activeModels();
    for (const model of models) this.#look(model);
    const active = new Set(models.map(({ row }) => row.model_id));
    for (const model_id of this.#demands.keys()) if (!active.has(model_id)) this.#demands.delete(model_id);
  }

  /** Resolves when no start is being begun. */
  async idle(): Promise<void> {
    await Promise.all(this.#scaling.values());
  }

  #look(model: FleetModel): void {
    const { history, clock } = this.#deps;
    const { model_id, checkpoint } = model.row;
    const serving = this.#servingOf(model);
    const demand = this.#demandOf(model_id, serving);
    if (this.#scaling.has(model_id)) return;
    // The place is looked for only where a start may be due: with one that takes no time and costs nothing.
    const wish = this.#scale(model, serving, demand, { start_ms: 0, start_cost_ms: 0 });
    if (wish.instances <= serving.length) return;
    if (history.refusal(model_id, checkpoint, clock.monotonicMs()) !== null) return;
    const planned = this.#plan(model);
    if (planned === null) return;
    const costs = {
      start_ms: planned.cost_ms,
      start_cost_ms: Math.min(scaleOut_ms, model.row.queue_delay_ms),
    };
    const scale = this.#scale(model, serving, demand, costs);
    const missing = Math.min(scale.instances - serving.length, limits.scaled_at_once);
    if (missing <= 0) return;
    const scaling = this.#start(model, missing, scale.reason).finally(() => this.#scaling.delete(model_id));
    this.#scaling.set(model_id, scaling);
  }

  /** Instances that run or load; those that are stopped or parked count as not there. */
  #servingOf({ row }: FleetModel): readonly InstanceRow[] {
    return this.#deps.fleet
      .instancesOf(row.model_id)
      .filter((i) => i.checkpoint === row.checkpoint && (i.state === "ready" || i.state === "loading"));
  }

  /** Requests at the instances, of all gateways as far as workers report it, and those in the line here; averaged. */
  #demandOf(model_id: ModelId, serving: readonly InstanceRow[]): number {
    const { queue, reports, fleet, clock } = this.#deps;
    let now = queue.waitingFor(model_id);
    for (const { worker_id, instance_id, state } of serving) {
      const own = fleet.inFlight(instance_id) - (state === "loading" ? followerUses : 0);
      const reported = reports.of(worker_id, instance_id);
      now += Math.max(0, own, reported === null ? 0 : reported.active + reported.queued);
    }
    const at_ms = clock.monotonicMs();
    const before = this.#demands.get(model_id) ?? { mean: 0, at_ms };
    const mean = forgettingMean(before.mean, now, at_ms - before.at_ms, demandTime_ms);
    if (now === 0 && mean < 0.01) this.#demands.delete(model_id);
    else this.#demands.set(model_id, { mean, at_ms });
    return mean;
  }

  #scale(
    { row }: FleetModel,
    serving: readonly InstanceRow[],
    demand: number,
    costs: { readonly start_ms: number; readonly start_cost_ms: number },
  ): Scale {
    const { queue, fleet, isLeader } = this.#deps;
    const { model_id, slots, max_instances, queue_delay_ms } = row;
    const { service_ms } = fleet.view().estimates.model(model_id);
    const waiting = serving.length === 0 ? 0 : queue.waitingFor(model_id);
    const leads = isLeader();
    return scaleTo({
      ...{ slots, max_instances, queue_delay_ms, service_ms, demand, ...costs },
      min_instances: leads ? row.min_instances : 0,
      target_concurrency: leads ? row.target_concurrency : null,
      instances: serving.length,
      // The first instance is started by the request that wants it, in its own turn.
      waiting,
    });
  }

  #plan(model: FleetModel): PlannedStart | null {
    const { fleet, queue, policy, random, clock } = this.#deps;
    const request = placementRequest(model, {
      ...{ avoid: avoidNothing, policy, seed: seedFor(policy, random), waiting_ahead: 0 },
      rivals: queue.rivalsOf(model.row.model_id),
      claims: queue.claims.all,
      may_migrate: false,
      now_ms: clock.wallMs(),
    });
    return decideStart(fleet.view(), request, true);
  }

  /** One after the other, so that each sees what the one before has booked; their loads run side by side. Never rejects. */
  async #start(model: FleetModel, count: number, reason: string): Promise<void> {
    const { starts, log } = this.#deps;
    const { model_id } = model.row;
    try {
      for (let i = 0; i < count; i++) {
        const planned = this.#plan(model);
        if (planned === null) return;
        const { action } = planned;
        const victims = action.kind === "reclaim" ? action.victims : [];
        const outcome = await starts.start(model, action.target, victims);
        if (!outcome.created) return;
        const { instance_id, worker_id } = outcome.instance;
        log.info("scaled_up", { model_id, instance_id, worker_id, reason });
      }
    } catch (error) {
      log.error("scaling_failed", { model_id }, error);
    }
  }
}
