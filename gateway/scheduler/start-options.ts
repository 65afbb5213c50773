/** What could be done to start the model somewhere, per device and for a list of candidates. Pure. */
import { type Candidate, type Candidates, freeBytes, idleBytesBeside, toTarget } from "./candidates.ts";
import { isIdle } from "./cluster-index.ts";
import type { Action, Loser } from "./decision.ts";
import { holdMs } from "./hold.ts";
import { planMoves } from "./migrate.ts";
import type { Option } from "./option.ts";
import { compareText } from "./order.ts";
import { choosePreempted, chooseVictims, stopMs } from "./reclaim.ts";
import { isClaimed } from "./serve.ts";
import type { ClusterView, DeviceNode, InstanceNode, PlacementRequest } from "./view.ts";

/** A start in memory that is free now. */
export function startInFree(candidate: Candidate): Option {
  const target = toTarget(candidate);
  const from = `from ${target.tier}`;
  const reason =
    target.parked === null ? `starts soonest there, ${from}` : `is parked there, its bytes come ${from}`;
  return {
    action: { kind: "start", target },
    cost_ms: candidate.ready_ms,
    reason,
    losers: [],
  };
}

/** A start that stops idle instances; null when they are not enough. */
export function startByReclaim(candidate: Candidate): Option | null {
  const victims = chooseVictims(candidate);
  if (victims === null) return null;
  return {
    action: { kind: "reclaim", target: toTarget(candidate), victims: idsOf(victims) },
    cost_ms: candidate.ready_ms + stopMs(victims),
    reason: `stopping ${victims.length} idle frees enough memory there`,
    losers: [],
  };
}

/** A start on a busy device after its running instances have moved; null when they cannot. */
export function startByMoves(
  view: ClusterView,
  request: PlacementRequest,
  candidate: Candidate,
): Option | null {
  const plan = planMoves(view, request, candidate);
  if (plan === null) return null;
  const { moves, victims, cost_ms } = plan;
  return {
    action: { kind: "migrate", target: toTarget(candidate), moves, victims: idsOf(victims) },
    cost_ms: cost_ms + candidate.ready_ms,
    reason: `moving ${moves.length} running away is sooner than waiting for them or starting elsewhere`,
    losers: [],
  };
}

/** A start that stops running instances of others; null when that is not enough. */
export function startByPreemption(request: PlacementRequest, candidate: Candidate): Option | null {
  const victims = choosePreempted(candidate, request);
  if (victims === null) return null;
  return {
    action: { kind: "preempt", target: toTarget(candidate), victims: idsOf(victims) },
    cost_ms: candidate.ready_ms + stopMs(victims),
    reason: `stopping ${victims.length} frees the device where it starts soonest`,
    losers: [],
  };
}

/** Waiting until running work leaves the device, then a start there; for ever where more than work is in the way. */
export function waitForMemory(view: ClusterView, request: PlacementRequest, candidate: Candidate): Option {
  const claimed = isClaimed(request, candidate.device);
  // How long the other one's turn lasts is not known: any place that is known to come free goes before.
  const wait_ms = claimed ? Number.POSITIVE_INFINITY : holdMs(view, candidate, request.now_ms);
  const { device } = candidate;
  const until = isBehindLink(request, candidate) ? ("link" as const) : ("memory" as const);
  return {
    action: holdAt(device, until),
    cost_ms: wait_ms + candidate.ready_ms,
    reason: claimed
      ? "another model has waited longer for the device and is next"
      : `${request.memory_bytes} bytes are needed; the memory is held by instances that are in use or always kept`,
    losers: [],
  };
}

function holdAt({ host, device_id, instances }: DeviceNode, until: "memory" | "link"): Action {
  const models = instances.filter((i) => !isIdle(i)).map(({ view }) => view.model_id);
  const behind = [...new Set(models)].sort(compareText);
  return { kind: "hold", worker_id: host.worker_id, device_id, until, behind };
}

/** Bytes that begin to travel later than this leave a device idle for too long. */
const linkPatience_ms = 1_000;

/**
 * Whether a start there leaves the device to the others for now: its bytes would stand behind those of other loads, and
 * the device, taken and idle meanwhile, is wanted by models that could use it. Nothing is lost by waiting without it.
 */
export function isBehindLink(request: PlacementRequest, { device, travel }: Candidate): boolean {
  if (request.rivals.models === 0 || travel.queued_ms <= linkPatience_ms) return false;
  return request.claims.get(`${device.host.worker_id}/${device.device_id}`) !== request.model_id;
}

/** Waiting, without a device, until a start's bytes can travel. */
export function waitForLink({ cost_ms }: Option, { device, travel }: Candidate): Option {
  return {
    action: holdAt(device, "link"),
    cost_ms,
    reason: `its bytes would wait ${Math.round(travel.queued_ms)} ms for those of other loads, and others can use the device`,
    losers: [],
  };
}

/** The best candidates of each kind that lose against others, with what is in their way. */
export function losersOf(candidates: Candidates): readonly Loser[] {
  const lose = (choice: Loser["choice"], why: (candidate: Candidate) => string) => (candidate: Candidate) => {
    const { worker_id } = candidate.device.host;
    const { device_id } = candidate.device;
    const instance_id = candidate.parked?.view.instance_id ?? null;
    const estimate_ms = candidate.ready_ms;
    return { choice, worker_id, device_id, instance_id, estimate_ms, why: why(candidate) };
  };
  return [
    ...candidates.free.map(lose("start", () => "would start later or is fuller")),
    ...candidates.reclaimable.map(lose("reclaim", (c) => `${missing(c)} bytes are held by idle instances`)),
    ...candidates.busy.map(
      lose("hold", (c) => `${missing(c) - idleBytesBeside(c)} bytes are held by instances in use`),
    ),
  ];
}

function missing({ device, needed_bytes }: Candidate): number {
  return needed_bytes - freeBytes(device);
}

function idsOf(instances: readonly InstanceNode[]): string[] {
  return instances.map(({ view }) => view.instance_id);
}
