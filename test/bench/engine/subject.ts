/** What computes tokens in the benchmark of generation, and how its speed is told from the times of its tokens. */

/** Work that was measured, in tokens per second. */
export interface Speed {
  readonly tokens: number;
  readonly ms: number;
}

/** One engine with the model loaded, at rest between calls. */
export interface Subject {
  /** One prompt that nobody has seen before, until its first token. */
  prefill(text: string): Promise<Speed>;
  /** As many answers at once, all of `tokens` tokens. */
  decode(streams: number, tokens: number, text: string): Promise<Speed>;
  close(): Promise<void>;
}

export const perSecond = ({ tokens, ms }: Speed): number => (tokens * 1000) / ms;

/**
 * Speed of answers that run together, from the times of their tokens: from when all of them have begun to when the first
 * of them ends, so that neither prompts nor a thinning batch count.
 */
export function steadySpeed(answers: readonly (readonly number[])[]): Speed {
  const begun = Math.max(...answers.map((times) => times[0] ?? Number.NaN));
  const ends = Math.min(...answers.map((times) => times.at(-1) ?? Number.NaN));
  if (!(ends > begun)) throw new Error("the answers did not run together: ask for more tokens");
  const tokens = answers.flat().filter((at) => at > begun && at <= ends).length;
  return { tokens, ms: ends - begun };
}
