/** How long a request has patience with what may mend itself. Pure. */
import type { ErrorCode } from "../../schema/codes.ts";
import { SllmError } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";

/**
 * The pauses before all attempts at the last host that is left add up to a lease: by then a worker that went away
 * has come back under its new address or is known to be lost. Those that are tried more often pause no longer.
 */
export function pauseBeforeAttempt(failed_attempts: number): number {
  const parts = 2 ** (limits.placement_attempts - 1) - 1;
  const pause_ms = (limits.worker_lease_ms * 2 ** (failed_attempts - 1)) / parts;
  return Math.min(pause_ms, limits.failover_pause_ms);
}

/**
 * A checkpoint that was converted and deployed a moment ago is in the next report of its worker: the first request
 * waits for that report instead of failing.
 */
export function mayStillBeReported(code: ErrorCode, waited_ms: number): boolean {
  return code === "checkpoint_unavailable" && waited_ms < 2 * limits.heartbeat_ms;
}

/** A database that is away keeps nothing from being started but for a while. */
export function isDatabaseAway(error: unknown): boolean {
  return error instanceof SllmError && error.code === "state_unavailable";
}
