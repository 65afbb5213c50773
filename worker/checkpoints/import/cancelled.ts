/** How a conversion ends that its caller aborted. */
import { SllmError } from "../../../schema/error.ts";

export function cancelled(): SllmError {
  return new SllmError("cancelled", "The conversion was cancelled.");
}

/** Throws `cancelled` once the signal is aborted. */
export function checkCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw cancelled();
}
