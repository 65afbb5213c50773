/** How a move waits for what others do. */
import { isLastMoveEvent, type MoveEvent } from "../../../schema/cluster/moves.ts";
import { SllmError } from "../../../schema/error.ts";

/** Keeps a stream of rounds open, which keeps the destination close, until its end or until it is left. */
export async function drainQuietly(reader: AsyncIterator<MoveEvent>): Promise<void> {
  try {
    for (;;) {
      const { value, done } = await reader.next();
      if (done === true || isLastMoveEvent(value)) return;
    }
  } catch {
    // What becomes of the move is told by the hand-over.
  }
}

/** The promise, or `cancelled` when the signal comes first. */
export function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(new SllmError("cancelled", "The move was given up."));
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
