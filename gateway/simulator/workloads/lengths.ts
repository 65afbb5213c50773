/** How long prompts and answers are: drawn from a list of pairs, or from quantiles of a known data set. */
import type { SeededRandom } from "../random.ts";

export interface Lengths {
  draw(random: SeededRandom): { readonly input_tokens: number; readonly output_tokens: number };
}

/**
 * Every twentieth of GSM8K's test set (openai/grade-school-math, MIT): words and punctuation of questions, and words of
 * answers, which ServerlessLLM's own replay takes for the length of the output.
 */
const gsm8kQuestions = [19, 28, 32, 34, 36, 38, 41, 43, 46, 48, 51, 53, 55, 58, 61, 64, 68, 74, 81, 94, 181];
const gsm8kAnswers = [5, 18, 23, 27, 30, 33, 36, 39, 42, 45, 49, 51, 55, 58, 62, 68, 72, 80, 89, 105, 173];

/** Prompts and answers drawn apart; the data set's own pairs, where its file is at hand, keep what they have in common. */
export const gsm8k: Lengths = {
  draw: (random) => ({
    input_tokens: atQuantile(gsm8kQuestions, random.next()),
    output_tokens: atQuantile(gsm8kAnswers, random.next()),
  }),
};

export function lengthsOf(
  pairs: readonly (readonly [input_tokens: number, output_tokens: number])[],
): Lengths {
  if (pairs.length === 0) throw new RangeError("there is no length to draw");
  return {
    draw: (random) => {
      const [input_tokens, output_tokens] = pairs[random.below(pairs.length)] ?? [1, 1];
      return { input_tokens, output_tokens };
    },
  };
}

function atQuantile(marks: readonly number[], part: number): number {
  const place = part * (marks.length - 1);
  const below = marks[Math.floor(place)] ?? 1;
  const above = marks[Math.ceil(place)] ?? below;
  return Math.round(below + (above - below) * (place - Math.floor(place)));
}
