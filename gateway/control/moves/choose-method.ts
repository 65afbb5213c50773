/** How what a moving stream has computed gets to its destination: computed anew, or as its KV cache. Pure. */
import type { MigrationMethod } from "../../../schema/vocab.ts";

export interface MoveCosts {
  /** Of prompt and output. */
  readonly tokens: number;
  /** Of the KV cache for each; 0 where the model has none that could be sent. */
  readonly kv_bytes_per_token: number;
  /** At which a KV cache leaves the source. */
  readonly network_bytes_per_ms: number;
  /** What the destination is expected to take to compute them, a(t_in+t_out)+b. */
  readonly recompute_ms: number;
}

/** Milliseconds that the KV cache of a stream is expected to be under way. */
export function transferMs({
  tokens,
  kv_bytes_per_token,
  network_bytes_per_ms,
}: Omit<MoveCosts, "recompute_ms">): number {
  return (tokens * kv_bytes_per_token) / network_bytes_per_ms;
}

/** The faster one. That both engines can is for them to say: where they cannot, it is computed after all. */
export function chooseMethod(costs: MoveCosts): MigrationMethod {
  if (costs.kv_bytes_per_token === 0) return "recompute";
  return transferMs(costs) < costs.recompute_ms ? "kv_transfer" : "recompute";
}
