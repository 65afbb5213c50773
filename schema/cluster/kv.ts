/** Rows of the KV cache that go from worker to worker with a generation, in parts. */
import { z } from "zod";
import { limits } from "../limits.ts";
import { epoch } from "./generate.ts";

/** XXH3 of a part, in hexadecimal digits. */
export const kvDigest = z.string().regex(/^[0-9a-f]{16}$/);

/** Of an arrival: the rows of so many first tokens follow, from an engine of this fingerprint. */
export const arrivingKv = z.strictObject({
  fingerprint: z.string().max(limits.fingerprint_chars),
  tokens: z.number().int().min(1).max(limits.context_tokens),
});
export type ArrivingKv = z.infer<typeof arrivingKv>;

/**
 * PUT /v1/arrivals/{id}/kv: the rows of the tokens from one up to another, as the body's bytes. Answers when the engine
 * has them. Errors: `not_found`, `stale_generation`, `state_conflict` for rows that it does not wait for, or why the
 * engine refuses them.
 */
export const kvPartQuery = z.strictObject({
  epoch: z.coerce.number().pipe(epoch),
  from: z.coerce.number().int().min(0).max(limits.context_tokens),
  to: z.coerce.number().int().min(1).max(limits.context_tokens),
  digest: kvDigest,
});
export type KvPart = z.infer<typeof kvPartQuery>;
