/** Wall time that never jumps: as it was at the start, moved on by the clock for durations. */
import type { Clock } from "../ports.ts";

/**
 * A clock for what lasts: idle times, expected ends of loads. When the machine's wall clock is set, an hour that did not
 * pass must not end instances. Records keep to the wall clock itself.
 */
export function steadyClock(clock: Clock): Clock {
  const offset_ms = clock.wallMs() - clock.monotonicMs();
  return {
    wallMs: () => offset_ms + clock.monotonicMs(),
    monotonicMs: () => clock.monotonicMs(),
    sleep: (delay_ms, signal) => clock.sleep(delay_ms, signal),
    after: (delay_ms, call) => clock.after(delay_ms, call),
  };
}
