/** Fields that chat and text completions share: how tokens are drawn, when an answer ends, how it is told. */
import { z } from "zod";
import { modelId } from "../ids.ts";
import { limits } from "../limits.ts";
import { numberAbove, numberFrom, wholeFrom } from "./ranges.ts";

const stop = z
  .union([z.string(), z.array(z.string()).max(limits.stop_strings)])
  .nullish()
  .transform((value) => (value == null ? [] : typeof value === "string" ? [value] : value))
  .pipe(
    z.array(
      z
        .string()
        .min(1)
        .refine((text) => new TextEncoder().encode(text).length <= limits.stop_bytes, {
          message: `a stop string has at most ${limits.stop_bytes} bytes`,
        }),
    ),
  );

/** OpenAI's form: token numbers as names. */
const logitBias = z
  .record(z.string().regex(/^\d{1,7}$/, "a name is the number of a token"), numberFrom(-100, 100))
  .refine((entries) => Object.keys(entries).length <= limits.logit_bias, {
    message: `at most ${limits.logit_bias} tokens`,
  })
  .nullish()
  .transform((entries) =>
    Object.entries(entries ?? {}).map(([token, bias]) => ({ token: Number(token), bias })),
  );

export const requestFields = {
  model: modelId,
  stream: z.boolean().nullish(),
  stream_options: z.looseObject({ include_usage: z.boolean().nullish() }).nullish(),
  n: wholeFrom(1, limits.choices).nullish(),
  max_tokens: wholeFrom(1, limits.output_tokens).nullish(),
  temperature: numberFrom(0, 2).nullish(),
  top_p: numberAbove(0, 1).nullish(),
  top_k: wholeFrom(0, 1_000_000).nullish(),
  min_p: numberFrom(0, 1).nullish(),
  typical_p: numberAbove(0, 1).nullish(),
  /** `repetition_penalty` is the same under the name that other servers use. */
  repeat_penalty: numberFrom(0.01, 10).nullish(),
  repetition_penalty: numberFrom(0.01, 10).nullish(),
  repeat_last_n: wholeFrom(0, limits.repeat_last_n).nullish(),
  presence_penalty: numberFrom(-2, 2).nullish(),
  frequency_penalty: numberFrom(-2, 2).nullish(),
  logit_bias: logitBias,
  seed: wholeFrom(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER).nullish(),
  stop,
  ignore_eos: z.boolean().nullish(),
  user: z.string().nullish(),
  /** Extension: the answer goes on to its end whether somebody reads it or not. */
  background: z.boolean().nullish(),
};
