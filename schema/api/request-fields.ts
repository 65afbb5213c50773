/** Fields that chat and text completions share: how tokens are drawn, when an answer ends, how it is told. */
import { z } from "zod";
import { modelId } from "../ids.ts";
import { limits } from "../limits.ts";

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
  .record(z.string().regex(/^\d{1,7}$/, "a name is the number of a token"), z.number().min(-100).max(100))
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
  n: z.number().int().min(1).max(limits.choices).nullish(),
  max_tokens: z.number().int().min(1).max(limits.output_tokens).nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().gt(0).max(1).nullish(),
  top_k: z.number().int().min(0).max(1_000_000).nullish(),
  min_p: z.number().min(0).max(1).nullish(),
  typical_p: z.number().gt(0).max(1).nullish(),
  /** `repetition_penalty` is the same under the name that other servers use. */
  repeat_penalty: z.number().min(0.01).max(10).nullish(),
  repetition_penalty: z.number().min(0.01).max(10).nullish(),
  repeat_last_n: z.number().int().min(0).max(limits.repeat_last_n).nullish(),
  presence_penalty: z.number().min(-2).max(2).nullish(),
  frequency_penalty: z.number().min(-2).max(2).nullish(),
  logit_bias: logitBias,
  seed: z.number().int().min(Number.MIN_SAFE_INTEGER).max(Number.MAX_SAFE_INTEGER).nullish(),
  stop,
  ignore_eos: z.boolean().nullish(),
  user: z.string().nullish(),
};
