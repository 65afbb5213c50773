/** Writes that must happen once the world has changed: they wait for a database that is away. */
import { SllmError } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import type { Clock } from "../ports.ts";

/** Between two tries: short enough that a database that is back is noticed at once by a person's measure. */
const longestPause_ms = 4_000;

/**
 * Repeats `write` while it fails with `state_unavailable`, with growing pauses, until the signal aborts: then, and
 * for any other error, the error is thrown. For facts that hold already, such as an engine that runs or has ended.
 */
export async function writeWhenPossible<T>(
  clock: Pick<Clock, "sleep">,
  signal: AbortSignal,
  write: () => Promise<T>,
): Promise<T> {
  let pause_ms: number = limits.reconcile_ms;
  for (;;) {
    try {
      return await write();
    } catch (error) {
      const away = error instanceof SllmError && error.code === "state_unavailable";
      if (!away || signal.aborted) throw error;
      await clock.sleep(pause_ms, signal);
      if (signal.aborted) throw error;
      pause_ms = Math.min(2 * pause_ms, longestPause_ms);
    }
  }
}
