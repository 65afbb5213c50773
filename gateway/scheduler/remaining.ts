/** How much running work has still to do, by what gateways count of it. Pure. */
import type { DeviceKind } from "../../schema/vocab.ts";
import type { ModelEstimates } from "./estimates.ts";
import type { InstanceNode, WorkView } from "./view.ts";

/**
 * Tokens that a generation is expected to have before it still. Answers of usual length end there; one that is longer
 * goes on for at least half as long again, as long answers do; none goes beyond its bound.
 */
export function remainingTokens(
  { output_tokens, most_tokens }: Pick<WorkView, "output_tokens" | "most_tokens">,
  usual_tokens: number,
): number {
  const expected = Math.max(usual_tokens - output_tokens, output_tokens / 2);
  return Math.max(0, Math.min(expected, most_tokens - output_tokens));
}

/** Until its first token is expected: what its prompt usually takes, less what has passed of that. */
export function remainingPromptMs(
  { prompt_tokens, begun_ms, output_tokens }: WorkView,
  kind: DeviceKind,
  model: ModelEstimates,
  now_ms: number,
): number {
  if (output_tokens > 0) return 0;
  return Math.max(0, model.migrationMs(kind, prompt_tokens, 1) - (now_ms - begun_ms));
}

/**
 * Until the last of the generations in slots there has ended; null where none is counted. One that has not begun yet has
 * a usual answer before it.
 */
export function remainingWorkMs(
  { view, usage, device }: InstanceNode,
  model: ModelEstimates,
  now_ms: number,
): number | null {
  if (usage.works.size === 0) return null;
  const { tokens, token_ms } = model.answer;
  let most_ms = usage.works.size < Math.min(usage.in_flight, view.slots) ? model.service_ms : 0;
  for (const work of usage.works) {
    const prompt_ms = device === null ? 0 : remainingPromptMs(work, device.kind, model, now_ms);
    most_ms = Math.max(most_ms, prompt_ms + remainingTokens(work, tokens) * token_ms);
  }
  return most_ms;
}
