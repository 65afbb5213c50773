/** Waiting with an end: for a promise, for some time, or until a signal. */
import type { Clock } from "../ports.ts";

/** True once `done` settled, however; false when the time is over or the signal aborted first. Never rejects. */
export function settlesWithin(
  done: Promise<unknown>,
  clock: Pick<Clock, "after">,
  delay_ms: number,
  signal: AbortSignal,
): Promise<boolean> {
  return new Promise((resolve) => {
    const finish = (isSettled: boolean) => {
      cancel();
      signal.removeEventListener("abort", giveUp);
      resolve(isSettled);
    };
    const giveUp = () => finish(false);
    const settled = () => finish(true);
    const cancel = clock.after(delay_ms, giveUp);
    done.then(settled, settled);
    signal.addEventListener("abort", giveUp, { once: true });
    if (signal.aborted) giveUp();
  });
}
