/** The real clock, from web-standard timers only. Bound in gateway/main. */
import type { Clock } from "../ports.ts";

export const systemClock: Clock = {
  wallMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: (delay_ms, signal) =>
    new Promise((resolve) => {
      if (signal?.aborted) {
        resolve();
        return;
      }
      const finish = () => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", finish);
        resolve();
      };
      const timer = setTimeout(finish, delay_ms);
      signal?.addEventListener("abort", finish, { once: true });
    }),
  after: (delay_ms, call) => {
    const timer = setTimeout(call, delay_ms);
    return () => clearTimeout(timer);
  },
};
