/** How work on checkpoints ends that its caller aborted. */
import { SllmError } from "../../../schema/error.ts";

export function cancelled(work = "conversion"): SllmError {
  return new SllmError("cancelled", `The ${work} was cancelled.`);
}

/** Throws `cancelled` once the signal is aborted. */
export function checkCancelled(signal: AbortSignal | undefined, work?: string): void {
  if (signal?.aborted) throw cancelled(work);
}
