/** Which checkpoints are worth reading into host memory before anybody asks for them, and where. Pure. */
import type { CheckpointDigest, ModelId, WorkerId } from "../../schema/ids.ts";
import { compareText } from "./order.ts";
import type { ClusterView, HostNode } from "./view.ts";

export interface PreloadWish {
  readonly model_id: ModelId;
  readonly checkpoint: CheckpointDigest;
  readonly weights_bytes: number;
  /** Memory that an instance takes: hosts without a device that large need no bytes. */
  readonly memory_bytes: number;
  /** How likely it is to be wanted soon, 1 for sure. */
  readonly likelihood: number;
}

export interface Preload {
  readonly worker_id: WorkerId;
  readonly checkpoint: CheckpointDigest;
  readonly model_id: ModelId;
}

/**
 * For every wish that no instance and no host memory fulfils one host that has the whole file, the least queued first.
 * The likeliest go first, and no host gets two at once.
 */
export function choosePreloads(view: ClusterView, wishes: readonly PreloadWish[]): readonly Preload[] {
  const chosen: Preload[] = [];
  const taken = new Set<HostNode>();
  const ordered = wishes.toSorted(
    (a, b) => b.likelihood - a.likelihood || compareText(a.model_id, b.model_id),
  );
  for (const { model_id, checkpoint, weights_bytes, memory_bytes } of ordered) {
    if (view.instancesOf(model_id).length > 0) continue;
    const holders = view.holdersOf(checkpoint).filter(({ host }) => host.accepting);
    // Bytes on the way count: somebody reads them already.
    if (holders.some(({ bytes }) => bytes.host > 0 || bytes.device > 0)) continue;
    const [best] = holders
      .filter(({ host, bytes }) => !taken.has(host) && bytes.disk >= weights_bytes)
      .filter(({ host }) => host.devices.some((d) => d.memory_bytes >= memory_bytes))
      .map(({ host }) => host)
      .sort((a, b) => queuedMs(a) - queuedMs(b) || compareText(a.worker_id, b.worker_id));
    if (best === undefined) continue;
    taken.add(best);
    chosen.push({ worker_id: best.worker_id, checkpoint, model_id });
  }
  return chosen;
}

function queuedMs({ disk }: HostNode): number {
  return disk?.queued_ms ?? 0;
}

/** An arrival this long ago counts half. */
const halfLife_ms = 10 * 60 * 1000;
/** How far ahead a forecast looks. */
const horizon_ms = 10 * 60 * 1000;

/** Arrivals of requests for one model, each worth less the longer it is ago; as of `at_ms`. */
export interface Arrivals {
  readonly score: number;
  readonly at_ms: number;
}

/** With one more. */
export function withArrival(before: Arrivals | undefined, now_ms: number): Arrivals {
  return { score: 1 + (before === undefined ? 0 : scoreAt(before, now_ms)), at_ms: now_ms };
}

export function scoreAt({ score, at_ms }: Arrivals, now_ms: number): number {
  return score * 0.5 ** (Math.max(0, now_ms - at_ms) / halfLife_ms);
}

/** That a request comes within the horizon, if they go on coming as they lately did, independently of each other. */
export function likelihoodOf(arrivals: Arrivals, now_ms: number): number {
  const perMs = (scoreAt(arrivals, now_ms) * Math.LN2) / halfLife_ms;
  return 1 - Math.exp(-perMs * horizon_ms);
}
