/**
 * Plans moves of running instances that free a device: dynamic programming over sets of victims and destinations. All
 * moves of a plan together fit their destinations, in memory and in slots. Pure.
 */
import { limits } from "../../schema/limits.ts";
import { type Candidate, forEachHost, freeBytes, idleBytesBeside } from "./candidates.ts";
import type { Move } from "./decision.ts";
import { readyMs, startState } from "./estimate.ts";
import { compareDevices, compareText, Shortlist } from "./order.ts";
import { chooseVictims, stopMs } from "./reclaim.ts";
import { remainingWorkMs } from "./remaining.ts";
import { isClaimed } from "./serve.ts";
import type { ClusterView, DeviceNode, InstanceNode, PlacementRequest } from "./view.ts";

export interface MovePlan {
  readonly moves: readonly Move[];
  /** Idle instances of the device that have to go besides. */
  readonly victims: readonly InstanceNode[];
  /** Until all have moved: destinations work side by side, each on one move after the other. */
  readonly cost_ms: number;
}

/** Free places that are looked at for each victim. */
const placesPerVictim = 4;

/** One victim at one destination. */
interface Place {
  readonly victim: number;
  readonly into: InstanceNode | null;
  readonly cost_ms: number;
}

/** A device, or with `into` a running instance on it, that takes victims in. */
interface Destination {
  readonly device: DeviceNode;
  readonly free_bytes: number;
  readonly places: Place[];
}

/** The cheapest plan that makes room for the candidate; null when there is none. */
export function planMoves(
  view: ClusterView,
  request: PlacementRequest,
  candidate: Candidate,
): MovePlan | null {
  const { device, needed_bytes } = candidate;
  if (isClaimed(request, device)) return null;
  const deficit = needed_bytes - freeBytes(device) - idleBytesBeside(candidate);
  const victims = findMovable(request, device);
  if (victims.reduce((sum, v) => sum + v.view.memory_bytes, 0) < deficit) return null;
  const destinations = findDestinations(view, request, device, victims);
  const plan = cheapestSet(victims, destinations, deficit);
  if (plan === null) return null;
  const freed = plan.steps.reduce((sum, s) => sum + (victims[s.place.victim]?.view.memory_bytes ?? 0), 0);
  const idle = chooseVictims(candidate, freed);
  if (idle === null) return null;
  const moves = plan.steps.map(({ destination, place }) => toMove(victims, destination, place));
  return { moves, victims: idle, cost_ms: plan.longest_ms + stopMs(idle) };
}

/** Running instances with work, the cheapest to compute again first. */
function findMovable(request: PlacementRequest, device: DeviceNode): readonly InstanceNode[] {
  return device.instances
    .filter(({ view, usage }) => view.state === "ready" && usage.in_flight > 0)
    .filter(({ view }) => view.model_id !== request.model_id)
    .sort((a, b) => a.usage.tokens - b.usage.tokens || compareText(a.view.instance_id, b.view.instance_id))
    .slice(0, limits.movable_instances);
}

function findDestinations(
  view: ClusterView,
  request: PlacementRequest,
  source: DeviceNode,
  victims: readonly InstanceNode[],
): readonly Destination[] {
  const byDevice = new Map<DeviceNode, Destination>();
  for (const [victim, instance] of victims.entries()) {
    for (const { device, into, cost_ms } of findPlaces(view, request, source, instance)) {
      const known = byDevice.get(device) ?? { device, free_bytes: freeBytes(device), places: [] };
      byDevice.set(device, known);
      known.places.push({ victim, into, cost_ms });
    }
  }
  return [...byDevice.values()].sort((a, b) => compareDevices(a.device, b.device));
}

interface FoundPlace {
  readonly device: DeviceNode;
  readonly into: InstanceNode | null;
  readonly cost_ms: number;
}

/** Instances of the same model with slots for all, and free memory for a new one; never the source. */
function findPlaces(
  view: ClusterView,
  request: PlacementRequest,
  source: DeviceNode,
  victim: InstanceNode,
): readonly FoundPlace[] {
  const { view: row, usage } = victim;
  const model = view.estimates.model(row.model_id);
  // Work that ends before its move would is gone by then.
  const ends_ms = remainingWorkMs(victim, model, request.now_ms) ?? Number.POSITIVE_INFINITY;
  const moveMs = (device: DeviceNode) =>
    Math.min(ends_ms, model.migrationMs(device.kind, usage.tokens, usage.in_flight));
  const found = new Shortlist<FoundPlace>(
    placesPerVictim,
    (a, b) => a.cost_ms - b.cost_ms || compareDevices(a.device, b.device),
  );
  const runsAlready = new Set<DeviceNode>([source]);
  for (const other of view.instancesOf(row.model_id)) {
    const { device } = other;
    if (device === null || device === source) continue;
    if (other.view.state !== "parked") runsAlready.add(device);
    const slots = other.view.slots - other.usage.in_flight;
    const takesAll = other.view.state === "ready" && other.view.checkpoint === row.checkpoint;
    if (!takesAll || slots < usage.in_flight || !device.host.accepting) continue;
    found.offer({ device, into: other, cost_ms: moveMs(device) });
  }
  const weights_bytes = view.weightsOf(row.checkpoint);
  if (weights_bytes === null) return found.items;
  const { avoid, now_ms } = request;
  const wanted = { checkpoint: row.checkpoint, weights_bytes, avoid, now_ms };
  forEachHost(view, model, wanted, (host, travel) => {
    const start = startState(host, row.checkpoint, travel, false);
    for (const device of host.devices) {
      if (runsAlready.has(device) || isClaimed(request, device) || freeBytes(device) < row.memory_bytes)
        continue;
      const cost_ms = readyMs(model, device, travel, start) + moveMs(device);
      if (found.bar === null || cost_ms <= found.bar.cost_ms) found.offer({ device, into: null, cost_ms });
    }
  });
  return found.items;
}

interface Step {
  readonly destination: Destination;
  readonly place: Place;
}

interface PartialPlan {
  readonly longest_ms: number;
  readonly total_ms: number;
  readonly steps: readonly Step[];
}

/**
 * best[set]: the cheapest way to move exactly that set of victims with the destinations seen so far. Each destination in
 * turn takes a subset that fits it as a whole, so nothing of it is promised twice.
 */
function cheapestSet(
  victims: readonly InstanceNode[],
  destinations: readonly Destination[],
  deficit: number,
): PartialPlan | null {
  const sets = 1 << victims.length;
  let best: (PartialPlan | null)[] = new Array<PartialPlan | null>(sets).fill(null);
  best[0] = { longest_ms: 0, total_ms: 0, steps: [] };
  for (const destination of destinations) {
    const shares = sharesOf(destination, victims, sets);
    const next = [...best];
    for (let set = 1; set < sets; set++) {
      for (let share = set; share > 0; share = (share - 1) & set) {
        const before = best[set ^ share] ?? null;
        const taken = shares[share] ?? null;
        if (before === null || taken === null) continue;
        const plan = {
          longest_ms: Math.max(before.longest_ms, taken.total_ms),
          total_ms: before.total_ms + taken.total_ms,
          steps: [...before.steps, ...taken.steps],
        };
        if (isCheaper(plan, next[set] ?? null)) next[set] = plan;
      }
    }
    best = next;
  }
  let chosen: PartialPlan | null = null;
  for (const plan of best) {
    if (plan === null || freedBy(plan, victims) < deficit) continue;
    if (isCheaper(plan, chosen)) chosen = plan;
  }
  return chosen;
}

/** For every set of victims what the destination takes for it; null where it does not fit. */
function sharesOf(
  destination: Destination,
  victims: readonly InstanceNode[],
  sets: number,
): readonly (PartialPlan | null)[] {
  const shares = new Array<PartialPlan | null>(sets).fill(null);
  for (let set = 1; set < sets; set++) {
    let total_ms = 0;
    let bytes = 0;
    const steps: Step[] = [];
    for (const [victim, { view }] of victims.entries()) {
      if ((set & (1 << victim)) === 0) continue;
      const place = destination.places.find((p) => p.victim === victim);
      if (place === undefined) break;
      steps.push({ destination, place });
      total_ms += place.cost_ms;
      if (place.into === null) bytes += view.memory_bytes;
    }
    if (steps.length !== countBits(set) || bytes > destination.free_bytes) continue;
    shares[set] = { longest_ms: total_ms, total_ms, steps };
  }
  return shares;
}

function isCheaper(plan: PartialPlan, than: PartialPlan | null): boolean {
  if (than === null || plan.longest_ms !== than.longest_ms) {
    return than === null || plan.longest_ms < than.longest_ms;
  }
  return plan.total_ms < than.total_ms;
}

function freedBy(plan: PartialPlan, victims: readonly InstanceNode[]): number {
  return plan.steps.reduce((sum, { place }) => sum + (victims[place.victim]?.view.memory_bytes ?? 0), 0);
}

function countBits(set: number): number {
  let count = 0;
  for (let rest = set; rest > 0; rest &= rest - 1) count += 1;
  return count;
}

function toMove(victims: readonly InstanceNode[], { device }: Destination, place: Place): Move {
  return {
    instance_id: victims[place.victim]?.view.instance_id ?? "",
    worker_id: device.host.worker_id,
    device_id: device.device_id,
    into: place.into?.view.instance_id ?? null,
    estimate_ms: place.cost_ms,
  };
}
