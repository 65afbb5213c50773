/** One thing that could be done for a request, with its cost. */
import type { Action, Loser } from "./decision.ts";

export interface Option {
  readonly action: Action;
  /** Until the request is expected to be served. */
  readonly cost_ms: number;
  /** What it costs the others that wait, in this request's time; nothing if left out. */
  readonly toll_ms?: number;
  readonly reason: string;
  /** What lost against it when it was made. */
  readonly losers: readonly Loser[];
}

/** For the request and for the others together. */
export function wholeCostMs({ cost_ms, toll_ms = 0 }: Option): number {
  return cost_ms + toll_ms;
}

/** The cheapest; of equals the first. */
export function cheapest(options: readonly Option[]): Option | null {
  let best: Option | null = null;
  for (const option of options) if (best === null || wholeCostMs(option) < wholeCostMs(best)) best = option;
  return best;
}
