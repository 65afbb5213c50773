/** Waiting with an end: for a promise, for some time, or until a signal. */
import type { Clock } from "../ports.ts";

/** True once `done` settled, however; false when the time is over or the signal aborted first. Never rejects. */
export async function settlesWithin(
  done: Promise<unknown>,
  clock: Pick<Clock, "sleep">,
  delay_ms: number,
  signal: AbortSignal,
): Promise<boolean> {
  const stop = new AbortController();
  const giveUp = () => stop.abort();
  signal.addEventListener("abort", giveUp, { once: true });
  if (signal.aborted) stop.abort();
  const settled = done.then(
    () => true,
    () => true,
  );
  try {
    return await Promise.race([settled, clock.sleep(delay_ms, stop.signal).then(() => false)]);
  } finally {
    signal.removeEventListener("abort", giveUp);
    stop.abort();
  }
}
