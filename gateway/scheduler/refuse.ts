/** Why nothing can be done for a request: counted over the whole cluster, since that is rare. Pure. */
import type { ErrorCode } from "../../schema/codes.ts";
import { limits } from "../../schema/limits.ts";
import { bytesOn } from "./candidates.ts";
import { type Decision, type Loser, shortened } from "./decision.ts";
import { estimateTravel, noBytes } from "./estimate.ts";
import { compareText } from "./order.ts";
import type { Serving } from "./serve.ts";
import type { ClusterView, PlacementRequest, ProblemView } from "./view.ts";

interface Counts {
  readonly accepting: number;
  readonly withoutCheckpoint: number;
  readonly tooSmall: number;
  /** Of the devices with the checkpoint; 0 when there is none. */
  readonly largest_bytes: number;
  /** What the model would book on that device. */
  readonly needed_bytes: number;
  readonly losers: readonly Loser[];
}

/** Says whether the refusal is for now or for good, and why. */
export function refuse(
  view: ClusterView,
  request: PlacementRequest,
  serving: Serving,
  losers: readonly Loser[],
): Decision {
  const counted = countDevices(view, request);
  const { accepting, withoutCheckpoint, tooSmall, largest_bytes, needed_bytes } = counted;
  const all = { estimate_ms: null, losers: shortened([...losers, ...counted.losers]) };
  const cannotNow = (code: "overloaded" | "no_worker", reason: string): Decision => ({
    ...all,
    action: { kind: "cannot_now", code },
    reason,
  });
  const cannotEver = (code: ErrorCode, reason: string): Decision => ({
    ...all,
    action: { kind: "cannot_ever", code },
    reason,
  });
  if (serving.count > 0) return cannotNow("overloaded", "The queues of all instances are full.");
  if (accepting === 0) return cannotNow("no_worker", "No worker is connected that takes work.");
  if (withoutCheckpoint === accepting) {
    const problem = problemOf(view, request);
    if (problem !== null) return cannotEver(problem.code, problem.message);
    return cannotEver("checkpoint_unavailable", `None of ${accepting} devices' workers has the checkpoint.`);
  }
  if (tooSmall + withoutCheckpoint === accepting) {
    const needs = `The model needs ${needed_bytes} bytes with its context`;
    return cannotEver(
      "model_too_large",
      `${needs}; the largest device that has its checkpoint gives models ${largest_bytes}.`,
    );
  }
  return cannotNow("no_worker", "Every worker that could run the model failed this request.");
}

function countDevices(view: ClusterView, request: PlacementRequest): Counts {
  const { checkpoint, weights_bytes } = request;
  const model = view.estimates.model(request.model_id);
  const bytes = new Map(view.holdersOf(checkpoint).map((h) => [h.host, h.bytes] as const));
  const anyComplete = [...bytes].some(
    ([host, of]) => host.accepting && Math.max(of.disk, of.host) >= weights_bytes,
  );
  const losers: Loser[] = [];
  let accepting = 0;
  let withoutCheckpoint = 0;
  let tooSmall = 0;
  let largest_bytes = 0;
  let needed_bytes = request.memory_bytes;
  for (const host of view.hosts) {
    const lose = (device_id: string, why: string) => {
      if (losers.length >= limits.explained_candidates) return;
      const { worker_id } = host;
      losers.push({ choice: null, worker_id, device_id, instance_id: null, estimate_ms: null, why });
    };
    if (!host.accepting) {
      for (const { device_id } of host.devices) lose(device_id, "its worker takes nothing new");
      continue;
    }
    accepting += host.devices.length;
    const travel = estimateTravel(view, model, host, request, bytes.get(host) ?? noBytes, anyComplete);
    if (travel === null) {
      withoutCheckpoint += host.devices.length;
      for (const { device_id } of host.devices) lose(device_id, "its worker does not have the checkpoint");
      continue;
    }
    if (request.unfit?.has(host.worker_id)) {
      withoutCheckpoint += host.devices.length;
      for (const { device_id } of host.devices) lose(device_id, "its worker does not have the adapter");
      continue;
    }
    for (const device of host.devices) {
      const { device_id, memory_bytes: has } = device;
      if (has > largest_bytes) {
        largest_bytes = has;
        needed_bytes = bytesOn(device, request);
      }
      if (has < bytesOn(device, request)) {
        tooSmall += 1;
        lose(device_id, `has ${has} bytes in all`);
      } else if (request.avoid.workers.has(host.worker_id)) {
        lose(device_id, "its worker failed this request before");
      }
    }
  }
  return { accepting, withoutCheckpoint, tooSmall, largest_bytes, needed_bytes, losers };
}

/** Why the checkpoint is on no worker although one has it, or should have its store. */
function problemOf(view: ClusterView, request: PlacementRequest): ProblemView | null {
  const ordered = view.problems.toSorted((a, b) => compareText(a.worker_id, b.worker_id));
  const ofCheckpoint = ordered.find((p) => p.checkpoint === request.checkpoint);
  return ofCheckpoint ?? ordered.find((p) => p.checkpoint === null) ?? null;
}
