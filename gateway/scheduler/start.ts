/** The part of a decision about instances to start or to bring back: where, and whom to stop for it. Pure. */
import type { InstanceId } from "../../schema/ids.ts";
import type { Decision, Loser, StartTarget } from "./decision.ts";
import { estimateStartup } from "./estimate.ts";
import { compareText, inFlight, type Serving } from "./serve.ts";
import type { ClusterView, DeviceView, InstanceView, PlacementRequest } from "./view.ts";

/**
 * What a new instance costs beyond the travel of its bytes: process and model, as measured without a reserve. A parked
 * one has both.
 */
const build_ms = 300;

/** A device that the model could run on if its memory were free. */
export interface Candidate {
  readonly device: DeviceView;
  readonly target: StartTarget;
  /** Until it would be ready, as far as candidates differ. */
  readonly ready_ms: number;
  readonly free_bytes: number;
  /** Beyond what a parked instance books. */
  readonly needed_bytes: number;
}

export interface Candidates {
  /** Best first: soonest start, then most free memory, then ids. */
  readonly fitting: readonly Candidate[];
  readonly losers: readonly Loser[];
  /** Why devices were refused for good, counted for the message. */
  readonly tooSmall: number;
  readonly withoutCheckpoint: number;
  readonly accepting: number;
}

/** All devices on which the model could ever start, given who accepts work and who has the checkpoint. */
export function findCandidates(view: ClusterView, request: PlacementRequest, serving: Serving): Candidates {
  const fitting: Candidate[] = [];
  const losers: Loser[] = [];
  let tooSmall = 0;
  let withoutCheckpoint = 0;
  let accepting = 0;
  for (const device of view.devices) {
    const { worker_id, device_id } = device;
    const lose = (why: string) => losers.push({ worker_id, device_id, instance_id: null, why });
    const worker = view.workers.find((w) => w.worker_id === worker_id);
    if (worker?.accepting !== true) {
      lose("its worker takes nothing new");
      continue;
    }
    accepting += 1;
    const sources = view.sources.filter(
      (s) => s.worker_id === worker_id && s.checkpoint === request.checkpoint,
    );
    const links = view.links.filter((l) => l.worker_id === worker_id);
    const estimate = estimateStartup(device, request.weights_bytes, sources, links);
    if (estimate === null) {
      withoutCheckpoint += 1;
      lose("its worker does not have the checkpoint");
    } else if (request.memory_bytes > device.memory_bytes) {
      tooSmall += 1;
      lose(`has ${device.memory_bytes} bytes in all`);
    } else if (request.avoid.workers.has(worker_id)) {
      lose("its worker failed this request before");
    } else if (serving.ready.some((r) => r.worker_id === worker_id && r.device_id === device_id)) {
      lose("runs the model already: a second copy would share its compute");
    } else {
      const parked = findParked(view, request, device);
      fitting.push({
        device,
        target: { worker_id, device_id, ...estimate, parked: parked?.instance_id ?? null },
        ready_ms: estimate.estimate_ms + (parked === null ? build_ms : 0),
        free_bytes: device.memory_bytes - device.reserved_bytes,
        needed_bytes: request.memory_bytes - (parked?.memory_bytes ?? 0),
      });
    }
  }
  fitting.sort(
    (a, b) =>
      a.ready_ms - b.ready_ms ||
      b.free_bytes - a.free_bytes ||
      compareText(a.device.worker_id, b.device.worker_id) ||
      compareText(a.device.device_id, b.device.device_id),
  );
  return { fitting, losers, tooSmall, withoutCheckpoint, accepting };
}

/** The model's parked instance on a device that was used last; null when there is none that may serve the request. */
function findParked(view: ClusterView, request: PlacementRequest, device: DeviceView): InstanceView | null {
  const own = view.instances
    .filter((i) => i.worker_id === device.worker_id && i.device_id === device.device_id)
    .filter((i) => i.state === "parked" && i.model_id === request.model_id)
    .filter((i) => i.checkpoint === request.checkpoint && !request.avoid.instances.has(i.instance_id))
    .sort((a, b) => lastUsed(view, b) - lastUsed(view, a) || compareText(a.instance_id, b.instance_id));
  return own[0] ?? null;
}

/** The soonest start in memory that is free now. */
export function startInFreeMemory(candidates: Candidates): Decision | null {
  const free = candidates.fitting.filter((c) => c.free_bytes >= c.needed_bytes);
  const [best] = free;
  if (best === undefined) return null;
  const losers = [
    ...candidates.losers,
    ...candidates.fitting
      .filter((c) => c !== best)
      .map((c) =>
        toLoser(c, free.includes(c) ? "would start later or is fuller" : "has too little free memory"),
      ),
  ];
  const { target } = best;
  const reason =
    target.parked === null
      ? `starts soonest there, from ${target.tier}`
      : `is parked there, its bytes come from ${target.tier}`;
  return { action: { kind: "start", target }, reason, losers };
}

/** Stops idle instances where the fewest have to go; of equals, where they were used longest ago. */
export function startByReclaim(view: ClusterView, candidates: Candidates): Decision | null {
  let best: { candidate: Candidate; victims: readonly InstanceView[] } | null = null;
  for (const candidate of candidates.fitting) {
    const victims = chooseVictims(view, candidate);
    if (victims === null) continue;
    if (best === null || cost(view, victims) < cost(view, best.victims)) best = { candidate, victims };
  }
  if (best === null) return null;
  const victims: InstanceId[] = best.victims.map((v) => v.instance_id);
  const chosen = best.candidate;
  const losers = [
    ...candidates.losers,
    ...candidates.fitting.filter((c) => c !== chosen).map((c) => toLoser(c, "more would have to stop there")),
  ];
  const action = { kind: "reclaim", target: chosen.target, victims } as const;
  return { action, reason: `stopping ${victims.length} idle frees enough memory there`, losers };
}

/**
 * Idle instances of the device until their memory suffices, parked ones before running ones and the least recently
 * used of each first; then those that turn out not to be needed are spared, in the opposite order. Null when even all
 * of them do not free enough.
 */
function chooseVictims(view: ClusterView, candidate: Candidate): readonly InstanceView[] | null {
  const { worker_id, device_id, parked } = candidate.target;
  const runs = (instance: InstanceView) => (instance.state === "ready" ? 1 : 0);
  const idle = view.instances
    .filter((i) => i.worker_id === worker_id && i.device_id === device_id && i.instance_id !== parked)
    .filter((i) => (i.state === "ready" || i.state === "parked") && inFlight(view, i) === 0)
    .sort(
      (a, b) =>
        runs(a) - runs(b) ||
        lastUsed(view, a) - lastUsed(view, b) ||
        compareText(a.instance_id, b.instance_id),
    );
  const victims: InstanceView[] = [];
  let free_bytes = candidate.free_bytes;
  for (const instance of idle) {
    if (free_bytes >= candidate.needed_bytes) break;
    victims.push(instance);
    free_bytes += instance.memory_bytes;
  }
  if (free_bytes < candidate.needed_bytes) return null;
  for (const instance of victims.toReversed()) {
    if (free_bytes - instance.memory_bytes < candidate.needed_bytes) continue;
    victims.splice(victims.indexOf(instance), 1);
    free_bytes -= instance.memory_bytes;
  }
  return victims;
}

/** Orders sets of victims: count first, then the wall time of the latest use among them (below 2^43 ms). */
function cost(view: ClusterView, victims: readonly InstanceView[]): number {
  return victims.length * 2 ** 43 + Math.max(0, ...victims.map((v) => lastUsed(view, v)));
}

function lastUsed(view: ClusterView, instance: InstanceView): number {
  return view.last_used_ms.get(instance.instance_id) ?? 0;
}

function toLoser(candidate: Candidate, why: string): Loser {
  return {
    worker_id: candidate.device.worker_id,
    device_id: candidate.device.device_id,
    instance_id: null,
    why,
  };
}
