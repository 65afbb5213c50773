/**
 * The scheduler: where a request runs, decided from a view and nothing else. No clock, no randomness, no I/O;
 * the same view and request give the same decision. Whoever applies it verifies it against the store.
 */
import type { Decision, Loser } from "./decision.ts";
import { findServing, queueAnywhere, type Serving, serveNow } from "./serve.ts";
import { type Candidates, findCandidates, startByReclaim, startInFreeMemory } from "./start.ts";
import type { ClusterView, PlacementRequest } from "./view.ts";

/**
 * In this order: a free slot, a load under way, a short queue, a start or the return of a parked instance in free
 * memory (soonest first), one that stops idle instances, any queue. Running work and loads are never stopped for anything.
 */
export function decide(view: ClusterView, request: PlacementRequest): Decision {
  const serving = findServing(view, request);
  const served = serveNow(view, serving);
  if (served !== null) return served;
  const candidates = findCandidates(view, request, serving);
  const losers = [...serving.losers, ...candidates.losers];
  return (
    startInFreeMemory(candidates) ??
    startByReclaim(view, candidates) ??
    queueAnywhere(view, serving, losers) ??
    explain(request, serving, candidates, losers)
  );
}

/** Nothing can be done: says whether waiting helps, and why. */
function explain(
  request: PlacementRequest,
  serving: Serving,
  candidates: Candidates,
  losers: readonly Loser[],
): Decision {
  const cannotNow = (
    code: "overloaded" | "insufficient_memory" | "no_worker",
    holds: boolean,
    reason: string,
  ) => ({ action: { kind: "cannot_now", code, holds }, reason, losers }) as const;
  const cannotEver = (code: "insufficient_memory" | "checkpoint_unavailable", reason: string) =>
    ({ action: { kind: "cannot_ever", code }, reason, losers }) as const;

  const { accepting, withoutCheckpoint, tooSmall, fitting } = candidates;
  if (serving.ready.length > 0)
    return cannotNow("overloaded", false, "The queues of all instances are full.");
  if (accepting === 0) return cannotNow("no_worker", false, "No worker is connected that takes work.");
  if (fitting.length > 0) {
    const need = `${request.memory_bytes} bytes are needed`;
    return cannotNow(
      "insufficient_memory",
      true,
      `${need}; the memory is held by instances that are in use.`,
    );
  }
  if (withoutCheckpoint === accepting) {
    return cannotEver("checkpoint_unavailable", `None of ${accepting} devices' workers has the checkpoint.`);
  }
  if (tooSmall + withoutCheckpoint === accepting) {
    const need = `The model needs ${request.memory_bytes} bytes`;
    return cannotEver("insufficient_memory", `${need}; no device that has its checkpoint is large enough.`);
  }
  return cannotNow("no_worker", false, "Every worker that could run the model failed this request.");
}
