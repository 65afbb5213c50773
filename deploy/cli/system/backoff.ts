/** How long to wait before a crashed process is started again. Pure. */

const firstMs = 500;
/** Long enough to keep a broken set-up from filling the log, short enough to notice when it is mended. */
const lastMs = 30_000;
/** A process that ran this long had started well: its crash is a new story. */
const settledMs = 60_000;

export interface Backoff {
  /** Crashes in a row, this one included. */
  readonly crashes: number;
  readonly delay_ms: number;
}

/** The next pause: doubled with every crash in a row, from the start after a long run. */
export function nextBackoff(before: Backoff | null, ran_ms: number): Backoff {
  const crashes = before === null || ran_ms >= settledMs ? 1 : before.crashes + 1;
  return { crashes, delay_ms: Math.min(lastMs, firstMs * 2 ** (crashes - 1)) };
}
