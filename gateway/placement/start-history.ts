/** Remembers failed starts, so that a model that cannot start is not started in a loop. */
import type { ErrorCode } from "../../schema/codes.ts";
import { SllmError } from "../../schema/error.ts";
import type { CheckpointDigest, ModelId } from "../../schema/ids.ts";

/** Pause after the first failure; it doubles with each further one. */
const firstPause_ms = 1_000;
/** Longest pause: a mended cause is noticed within a minute. */
const longestPause_ms = 60_000;
/** Longest one after failures that say nothing about the model: well within the time that streams wait to go on. */
const longestPassingPause_ms = 4_000;

/** What befell a start from outside: the next one may well succeed. */
const passingCodes: ReadonlySet<ErrorCode> = new Set([
  "engine_killed",
  "state_conflict",
  "not_found",
  "cancelled",
  "overloaded",
]);

/** Whether a start that failed with this says nothing about its model. */
export function isPassing(code: ErrorCode): boolean {
  return passingCodes.has(code);
}

/** Pause after the nth failure in a row. Pure. */
export function backoffMs(failures: number, hasPassed = false): number {
  const longest_ms = hasPassed ? longestPassingPause_ms : longestPause_ms;
  return Math.min(firstPause_ms * 2 ** Math.max(0, failures - 1), longest_ms);
}

interface Failures {
  readonly checkpoint: CheckpointDigest;
  readonly count: number;
  readonly last_ms: number;
  readonly error: SllmError;
  /** The last one had a cause outside the model. */
  readonly hasPassed: boolean;
}

export class StartHistory {
  readonly #failures = new Map<ModelId, Failures>();

  /**
   * Another checkpoint under the same name starts with a clean record. `cause` is what the worker said, where `error` is
   * what clients are told. A model's own failures and those from outside are counted apart.
   */
  failed(
    model_id: ModelId,
    checkpoint: CheckpointDigest,
    error: SllmError,
    now_ms: number,
    cause: ErrorCode = error.code,
  ): void {
    const before = this.#failures.get(model_id);
    const hasPassed = isPassing(cause);
    const isAgain = before?.checkpoint === checkpoint && before.hasPassed === hasPassed;
    const count = isAgain ? before.count + 1 : 1;
    this.#failures.set(model_id, { checkpoint, count, last_ms: now_ms, error, hasPassed });
  }

  succeeded(model_id: ModelId): void {
    this.#failures.delete(model_id);
  }

  /** True when the last start of the model failed and none succeeded since. */
  hasFailed(model_id: ModelId, checkpoint: CheckpointDigest): boolean {
    return this.#failures.get(model_id)?.checkpoint === checkpoint;
  }

  /** The last failure with the time to wait, while no new start should be tried; else null. */
  refusal(model_id: ModelId, checkpoint: CheckpointDigest, now_ms: number): SllmError | null {
    const failures = this.#failures.get(model_id);
    if (failures === undefined || failures.checkpoint !== checkpoint) return null;
    const retry_after_ms = failures.last_ms + backoffMs(failures.count, failures.hasPassed) - now_ms;
    if (retry_after_ms <= 0) return null;
    const { code, message } = failures.error;
    return new SllmError(code, message, { retry_after_ms, cause: failures.error });
  }

  /**
   * How long a request waits before what something outside has ended is started again, in milliseconds. Throws the
   * refusal where the model itself has failed: nobody waits for what may never succeed.
   */
  admit(model_id: ModelId, checkpoint: CheckpointDigest, now_ms: number): number {
    const refusal = this.refusal(model_id, checkpoint, now_ms);
    if (refusal !== null && this.#failures.get(model_id)?.hasPassed === false) throw refusal;
    return refusal?.retry_after_ms ?? 0;
  }

  /** Forgets models that are not deployed any more. */
  keepOnly(isDeployed: (model_id: ModelId) => boolean): void {
    for (const model_id of this.#failures.keys()) if (!isDeployed(model_id)) this.#failures.delete(model_id);
  }
}
