/** What an engine is at: slots, cache and batches. Part of heartbeats and of the admin API. */
import { z } from "zod";

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);

export const engineActivity = z.strictObject({
  slots: count,
  /** Requests in slots. */
  running: count,
  /** Requests without one, those that were put back for lack of cache included. */
  waiting: count,
  /** Tokens that the KV cache holds for all slots together. */
  kv_tokens: count,
  /** Of them in use, or kept for requests that begin alike. */
  kv_used_tokens: count,
  /** Since the engine was built; with `computed_tokens` the mean size of a batch. */
  steps: count,
  /** In all steps: of prompts, of answers, and those computed again. */
  computed_tokens: count,
  /** Size of the last batch. */
  last_step_tokens: count,
});
export type EngineActivity = z.infer<typeof engineActivity>;

/** What the watchdog sees too: a number that stands still while the engine computes means that it hangs. */
export const engineBeat = engineActivity.extend({ progress: count, computing: z.boolean() });
export type EngineBeat = z.infer<typeof engineBeat>;
