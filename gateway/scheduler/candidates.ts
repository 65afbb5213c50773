/** Devices on which an instance could start or come back, by what stands in the way: nothing, idle or running ones. Pure. */
import { isIdle } from "./cluster-index.ts";
import type { StartTarget } from "./decision.ts";
import { estimateTravel, type HostTravel, noBytes, readyMs, startState, type TierBytes } from "./estimate.ts";
import type { ModelEstimates, StartState } from "./estimates.ts";
import { compareDevices, compareText, Shortlist } from "./order.ts";
import { isClaimed, refusal } from "./serve.ts";
import type { ClusterView, DeviceNode, HostNode, InstanceNode, PlacementRequest } from "./view.ts";

/** A device that the model could run on if its memory were free. */
export interface Candidate {
  readonly device: DeviceNode;
  /** The model's own instance there, to be brought back instead of a new start. */
  readonly parked: InstanceNode | null;
  readonly travel: HostTravel;
  readonly start: StartState;
  /** From the start of the load until the instance is ready. */
  readonly ready_ms: number;
  /** What the policy orders candidates by, the least first. */
  readonly rank: number;
  /** Beyond what a parked instance books. */
  readonly needed_bytes: number;
}

/** The best of each kind; nothing else of them is kept. */
export interface Candidates {
  readonly free: readonly Candidate[];
  readonly reclaimable: readonly Candidate[];
  readonly busy: readonly Candidate[];
}

/** Candidates of each kind that are looked at closely. */
const kept = 8;

/** Orders candidates for a policy. */
export interface Rank {
  of(device: DeviceNode, ready_ms: number): number;
  /** No device that is ready after this time ranks before it. */
  atLeast(ready_ms: number): number;
}

export const soonest: Rank = { of: (_device, ready_ms) => ready_ms, atLeast: (ready_ms) => ready_ms };

/** Looks at every device that could take the model, given who accepts work and from where bytes can come. */
export function findCandidates(
  view: ClusterView,
  request: PlacementRequest,
  model: ModelEstimates,
  rank: Rank,
): Candidates {
  const lists = new Lists(request);
  const parked = findParked(view, request);
  forEachHost(view, model, request, (host, travel) => {
    if (lists.areBetterThan(rank.atLeast(travel.arrival_ms))) return;
    const anew = startState(host, request.checkpoint, travel, false);
    for (const device of host.devices) {
      if (device.memory_bytes < bytesOn(device, request)) continue;
      const own = parked.get(device) ?? null;
      const start = own === null ? anew : { ...anew, how: "resume" as const };
      const ready_ms = readyMs(model, device, travel, start);
      lists.offer(device, own, travel, start, ready_ms, rank.of(device, ready_ms));
    }
  });
  return lists.found();
}

/** Every host that accepts work and can get all bytes, with the time they need to it. */
export function forEachHost(
  view: ClusterView,
  model: ModelEstimates,
  request: Pick<PlacementRequest, "checkpoint" | "weights_bytes" | "avoid" | "unfit" | "now_ms">,
  visit: (host: HostNode, travel: HostTravel) => void,
): void {
  const { checkpoint, weights_bytes, avoid, unfit } = request;
  const holders = view.holdersOf(checkpoint);
  const elsewhere = holders.some(
    ({ host, bytes }) => host.accepting && Math.max(bytes.disk, bytes.host) >= weights_bytes,
  );
  const look = (host: HostNode, bytes: TierBytes) => {
    if (!host.accepting || avoid.workers.has(host.worker_id) || unfit?.has(host.worker_id)) return;
    const travel = estimateTravel(view, model, host, request, bytes, elsewhere);
    if (travel !== null) visit(host, travel);
  };
  for (const { host, bytes } of holders) look(host, bytes);
  if (!view.remote.origin && !(view.remote.peer && elsewhere)) return;
  const held = new Set(holders.map(({ host }) => host));
  for (const host of view.hosts) if (!held.has(host)) look(host, noBytes);
}

/** The model's parked instance of each device that may serve the request; of several the one used last. */
function findParked(view: ClusterView, request: PlacementRequest): ReadonlyMap<DeviceNode, InstanceNode> {
  const found = new Map<DeviceNode, InstanceNode>();
  for (const instance of view.instancesOf(request.model_id)) {
    const { view: row, device } = instance;
    if (row.state !== "parked" || device === null || row.checkpoint !== request.checkpoint) continue;
    if (request.avoid.instances.has(row.instance_id)) continue;
    const before = found.get(device);
    if (before === undefined || isUsedLater(instance, before)) found.set(device, instance);
  }
  return found;
}

function isUsedLater(a: InstanceNode, b: InstanceNode): boolean {
  const later = a.usage.last_used_ms - b.usage.last_used_ms;
  return later > 0 || (later === 0 && compareText(a.view.instance_id, b.view.instance_id) < 0);
}

/** What a new instance books there. */
export function bytesOn(
  { repacks }: Pick<DeviceNode, "repacks">,
  { memory_bytes, repacked_bytes = 0 }: Pick<PlacementRequest, "memory_bytes" | "repacked_bytes">,
): number {
  return repacks ? memory_bytes + repacked_bytes : memory_bytes;
}

export function freeBytes(device: DeviceNode): number {
  return device.memory_bytes - device.reserved_bytes;
}

/** Bytes that idle instances of the device hold, the candidate's own parked one left out. */
export function idleBytesBeside({ device, parked }: Pick<Candidate, "device" | "parked">): number {
  return device.idle_bytes - (parked === null ? 0 : parked.view.memory_bytes);
}

export function toTarget({ device, parked, travel, start, ready_ms }: Candidate): StartTarget {
  return {
    worker_id: device.host.worker_id,
    device_id: device.device_id,
    tier: travel.tier,
    estimate_ms: ready_ms,
    queued_ms: travel.queued_ms,
    arrival_ms: travel.arrival_ms,
    is_beside: start.is_beside,
    parked: parked?.view.instance_id ?? null,
  };
}

const byRoom = (a: Candidate, b: Candidate) =>
  a.rank - b.rank || freeBytes(b.device) - freeBytes(a.device) || compareDevices(a.device, b.device);
const byRest = (a: Candidate, b: Candidate) =>
  a.rank - b.rank || restsSince(a.device) - restsSince(b.device) || compareDevices(a.device, b.device);
const byRank = (a: Candidate, b: Candidate) => a.rank - b.rank || compareDevices(a.device, b.device);

/** Last use of the idle instance that was used longest ago. */
function restsSince(device: DeviceNode): number {
  let since = Number.POSITIVE_INFINITY;
  for (const instance of device.instances) {
    if (isIdle(instance)) since = Math.min(since, instance.usage.last_used_ms);
  }
  return since;
}

class Lists {
  readonly #request: PlacementRequest;
  readonly #free = new Shortlist<Candidate>(kept, byRoom);
  readonly #reclaimable = new Shortlist<Candidate>(kept, byRest);
  readonly #busy = new Shortlist<Candidate>(kept, byRank);

  constructor(request: PlacementRequest) {
    this.#request = request;
  }

  /** True when no list would take a candidate of this rank: then its host need not be looked at. */
  areBetterThan(rank: number): boolean {
    const { bar } = this.#free;
    // Of the other kinds none can win that ranks behind eight starts in free memory.
    return bar !== null && bar.rank < rank;
  }

  offer(
    device: DeviceNode,
    parked: InstanceNode | null,
    travel: HostTravel,
    start: StartState,
    ready_ms: number,
    rank: number,
  ): void {
    const needed_bytes = bytesOn(device, this.#request) - (parked?.view.memory_bytes ?? 0);
    const free = freeBytes(device);
    // A device that another model has a claim to comes free again when that one has had its turn.
    const claimed = isClaimed(this.#request, device);
    const fits = !claimed && free >= needed_bytes;
    const fitsAfter = !claimed && free + idleBytesBeside({ device, parked }) >= needed_bytes;
    const list = fits ? this.#free : fitsAfter ? this.#reclaimable : this.#busy;
    // Most are worse than what is known: they cost no object.
    if (list.bar !== null && rank > list.bar.rank) return;
    if (runsModel(device, this.#request)) return;
    list.offer({ device, parked, travel, start, ready_ms, rank, needed_bytes });
  }

  found(): Candidates {
    return { free: this.#free.items, reclaimable: this.#reclaimable.items, busy: this.#busy.items };
  }
}

/** A second copy on the same device would share its compute. */
function runsModel(device: DeviceNode, request: PlacementRequest): boolean {
  return device.instances.some((i) => i.view.model_id === request.model_id && refusal(request, i) === null);
}
