/** Pauses between attempts to reach a gateway: longer each time, never in step with other workers. Pure. */

const firstMs = 200;
/** Gateways that are back wait for workers for `limits.worker_return_ms`; this is part of it. */
const longestMs = 2_000;

/** Pause after `failures` (at least 1) in a row; `random` from 0 to below 1 spreads it over its upper half. */
export function backOffMs(failures: number, random: number): number {
  const full = Math.min(longestMs, firstMs * 2 ** Math.min(failures - 1, 16));
  return full / 2 + (full / 2) * random;
}
