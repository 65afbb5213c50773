/** Waits with a limit. */
import type { Clock } from "./ports.ts";

/** Whether the promise resolves before the time is over. Throws what it rejects with, if that comes in time. */
export async function settlesInTime(
  promise: Promise<unknown>,
  clock: Pick<Clock, "sleep">,
  limit_ms: number,
): Promise<boolean> {
  const settled = new AbortController();
  const late = clock.sleep(limit_ms, settled.signal).then(() => "late");
  const first = await Promise.race([late, promise.then(() => "settled")]);
  settled.abort();
  return first === "settled";
}
