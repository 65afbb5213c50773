/** One thing that could be done for a request, with its cost. */
import type { Action, Loser } from "./decision.ts";

export interface Option {
  readonly action: Action;
  /** Until the request is expected to be served. */
  readonly cost_ms: number;
  readonly reason: string;
  /** What lost against it when it was made. */
  readonly losers: readonly Loser[];
}

/** The cheapest; of equals the first. */
export function cheapest(options: readonly Option[]): Option | null {
  let best: Option | null = null;
  for (const option of options) if (best === null || option.cost_ms < best.cost_ms) best = option;
  return best;
}
