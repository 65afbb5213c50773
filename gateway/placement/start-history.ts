/** Remembers failed starts, so that a model that cannot start is not started in a loop. */

import { SllmError } from "../../schema/error.ts";
import type { CheckpointDigest, ModelId } from "../../schema/ids.ts";

/** Pause after the first failure; it doubles with each further one. */
const firstPause_ms = 1_000;
/** Longest pause: a mended cause is noticed within a minute. */
const longestPause_ms = 60_000;

/** Pause after the nth failure in a row. Pure. */
export function backoffMs(failures: number): number {
  return Math.min(firstPause_ms * 2 ** Math.max(0, failures - 1), longestPause_ms);
}

interface Failures {
  readonly checkpoint: CheckpointDigest;
  readonly count: number;
  readonly last_ms: number;
  readonly error: SllmError;
}

export class StartHistory {
  readonly #failures = new Map<ModelId, Failures>();

  /** Another checkpoint under the same name starts with a clean record. */
  failed(model_id: ModelId, checkpoint: CheckpointDigest, error: SllmError, now_ms: number): void {
    const before = this.#failures.get(model_id);
    const count = before?.checkpoint === checkpoint ? before.count + 1 : 1;
    this.#failures.set(model_id, { checkpoint, count, last_ms: now_ms, error });
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
    const retry_after_ms = failures.last_ms + backoffMs(failures.count) - now_ms;
    if (retry_after_ms <= 0) return null;
    const { code, message } = failures.error;
    return new SllmError(code, message, { retry_after_ms, cause: failures.error });
  }

  /** Forgets models that are not deployed any more. */
  keepOnly(isDeployed: (model_id: ModelId) => boolean): void {
    for (const model_id of this.#failures.keys()) if (!isDeployed(model_id)) this.#failures.delete(model_id);
  }
}
