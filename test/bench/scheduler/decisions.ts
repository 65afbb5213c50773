/** How long decisions take: each is carried out on the view, which is part of the time, before the next is asked for. */
import type { ClusterIndex } from "../../../gateway/scheduler/cluster-index.ts";
import { decide } from "../../../gateway/scheduler/decide.ts";
import type { Action } from "../../../gateway/scheduler/decision.ts";
import {
  type InstanceUsage,
  noRivals,
  type PlacementRequest,
  type Rivals,
  unused,
} from "../../../gateway/scheduler/view.ts";
import { quantile } from "../statistics.ts";
import { type FleetModel, makeFleet } from "./fleet.ts";

export interface DecisionTimes {
  readonly hosts: number;
  readonly decisions: number;
  readonly instances: number;
  readonly placements: number;
  readonly p50_ms: number;
  readonly p99_ms: number;
  readonly max_ms: number;
  /** How often each kind of action was chosen. */
  readonly actions: Readonly<Record<string, number>>;
}

const warmUp = 2_000;

/** One of so many requests meets a crowd: other models that wait for devices, up to so many. */
const crowdEvery = 4;
const mostRivals = 64;

/**
 * Every other request is for a model drawn by popularity, the others for any, so that many are cold; one
 * of `crowdEvery` of both kinds decides as one of many.
 */
export function measureDecisions(hosts: number, count: number, may_migrate: boolean): DecisionTimes {
  const fleet = makeFleet(hosts);
  const times: number[] = [];
  const actions: Record<string, number> = {};
  const running: { readonly id: string; readonly usage: Mutable }[] = [];
  for (let i = 0; i < warmUp + count; i++) {
    const model = i % 2 === 0 ? fleet.draw() : fleet.drawAny();
    const request = toRequest(model, i, may_migrate);
    const begin = performance.now();
    const { action } = decide(fleet.index, request);
    const started = apply(fleet.index, model, action, i);
    const took_ms = performance.now() - begin;
    if (i >= warmUp) {
      times.push(took_ms);
      actions[action.kind] = (actions[action.kind] ?? 0) + 1;
    }
    if (started !== null) running.push(started);
    // As many end as begin, so that the fleet stays as full as it was.
    const ended = running.length > 4 * hosts ? running.shift() : undefined;
    if (ended !== undefined) {
      ended.usage.in_flight = 0;
      ended.usage.busy_since_ms = null;
      fleet.index.refresh(ended.id);
    }
  }
  const { instances, placements } = fleet;
  return {
    ...{ hosts, decisions: count, instances, placements },
    p50_ms: quantile(times, 0.5),
    p99_ms: quantile(times, 0.99),
    max_ms: Math.max(...times),
    actions,
  };
}

type Mutable = { -readonly [K in keyof InstanceUsage]: InstanceUsage[K] };

function toRequest(model: FleetModel, i: number, may_migrate: boolean): PlacementRequest {
  return {
    ...model,
    max_instances: Number.POSITIVE_INFINITY,
    waiting_ahead: 0,
    rivals: rivalsOf(i),
    queue_delay_ms: 5_000,
    avoid: { workers: new Set(), instances: new Set() },
    policy: "startup-optimal",
    seed: i,
    claims: new Map(),
    may_migrate,
    now_ms: 1e6 + i,
  };
}

/** Of any size up to the most, with one to eight requests a model: the same for the same request. */
function rivalsOf(i: number): Rivals {
  if (Math.floor(i / 2) % crowdEvery !== 0) return noRivals;
  const models = 1 + ((i * 29) % mostRivals);
  return { models, requests: models * (1 + ((i * 13) % 8)) };
}

/** What a gateway writes into its view after a decision. */
function apply(
  index: ClusterIndex,
  model: FleetModel,
  action: Action,
  i: number,
): { readonly id: string; readonly usage: Mutable } | null {
  if (action.kind !== "start" && action.kind !== "reclaim") return null;
  const { worker_id, device_id, parked } = action.target;
  if (action.kind === "reclaim") for (const victim of action.victims) index.remove(victim);
  if (parked !== null) index.remove(parked);
  const id = parked ?? `i-new-${i}`;
  const usage: Mutable = { ...unused, in_flight: 1, busy_since_ms: 1e6 + i, last_used_ms: 1e6 + i };
  const { model_id, checkpoint, memory_bytes } = model;
  const view = { instance_id: id, model_id, checkpoint, worker_id, device_id, slots: 8, memory_bytes };
  index.put({ ...view, state: "ready" }, usage);
  return { id, usage };
}
