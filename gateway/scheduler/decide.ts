/**
 * The scheduler: where a request runs, decided from a view and nothing else. No clock, no randomness, no I/O;
 * the same view and request give the same decision. Whoever applies it verifies it against the store.
 */
import type { ErrorCode } from "../../schema/codes.ts";
import type { Decision, Loser } from "./decision.ts";
import { compareText, findServing, queueAnywhere, type Serving, serveNow } from "./serve.ts";
import { type Candidates, findCandidates, startByReclaim, startInFreeMemory } from "./start.ts";
import type { ClusterView, PlacementRequest, ProblemView } from "./view.ts";

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
    explain(view, request, serving, candidates, losers)
  );
}

/** Nothing can be done: says whether waiting helps, and why. */
function explain(
  view: ClusterView,
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
  const cannotEver = (code: ErrorCode, reason: string) =>
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
    const problem = problemOf(view, request);
    if (problem !== null) return cannotEver(problem.code, problem.message);
    return cannotEver("checkpoint_unavailable", `None of ${accepting} devices' workers has the checkpoint.`);
  }
  if (tooSmall + withoutCheckpoint === accepting) {
    return cannotEver("model_too_large", tooLarge(view, request));
  }
  return cannotNow("no_worker", false, "Every worker that could run the model failed this request.");
}

/** Why the checkpoint is on no worker although one has it, or should have its store. */
function problemOf(view: ClusterView, request: PlacementRequest): ProblemView | null {
  const ordered = view.problems.toSorted((a, b) => compareText(a.worker_id, b.worker_id));
  const ofCheckpoint = ordered.find((p) => p.checkpoint === request.checkpoint);
  return ofCheckpoint ?? ordered.find((p) => p.checkpoint === null) ?? null;
}

function tooLarge(view: ClusterView, { checkpoint, memory_bytes }: PlacementRequest): string {
  const holders = new Set(view.sources.filter((s) => s.checkpoint === checkpoint).map((s) => s.worker_id));
  const largest = Math.max(
    ...view.devices.filter((d) => holders.has(d.worker_id)).map((d) => d.memory_bytes),
  );
  return `The model needs ${memory_bytes} bytes with its context; the largest device that has its checkpoint gives models ${largest}.`;
}
