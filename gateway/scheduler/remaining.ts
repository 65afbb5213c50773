/** How much running work has still to do, by what gateways count of it. Pure. */
import type { ModelEstimates } from "./estimates.ts";
import type { InstanceNode, WorkView } from "./view.ts";

/**
 * Tokens that a generation is expected to have before it still. Answers of usual length end there; one that is longer
 * goes on for at least half as long again, as long answers do; none goes beyond its bound.
 */
export function remainingTokens({ output_tokens, most_tokens }: WorkView, usual_tokens: number): number {
  const expected = Math.max(usual_tokens - output_tokens, output_tokens / 2);
  return Math.max(0, Math.min(expected, most_tokens - output_tokens));
}

/**
 * Until the last of the generations in slots there has ended; null where none is counted. One that has not begun yet has
 * a usual answer before it.
 */
export function remainingWorkMs({ view, usage }: InstanceNode, { answer }: ModelEstimates): number | null {
  if (usage.works.size === 0) return null;
  let most = usage.works.size < Math.min(usage.in_flight, view.slots) ? answer.tokens : 0;
  for (const work of usage.works) most = Math.max(most, remainingTokens(work, answer.tokens));
  return most * answer.token_ms;
}
