/** Where the time of one load or resume goes: noted while it runs, told when it is ready. */
import type { NativeLoadStatus } from "../../native/bun-ffi-helpers/native.ts";
import type { LoadEvent, LoadTimings } from "../../schema/cluster/instances.ts";
import type { Clock } from "../ports.ts";

export class LoadRecord {
  readonly #clock: Pick<Clock, "monotonicMs">;
  readonly #startedMs: number;
  readonly #isResume: boolean;
  #timings: LoadTimings | null = null;
  /** When the engine process said hello; 0 for one that was there. */
  helloAfterMs = 0;
  /** The weights were in host memory when it began. */
  wasPresent = false;
  /** Set with it when the weights went to discrete devices. */
  upload: { readonly bytes: number; readonly upload_ms: number } | null = null;
  /** Set when the engine has its model and its weights. */
  modelBuildMs: number | null = null;

  constructor(clock: Pick<Clock, "monotonicMs">, options: { readonly isResume: boolean }) {
    this.#clock = clock;
    this.#startedMs = clock.monotonicMs();
    this.#isResume = options.isResume;
  }

  /** null before `finish`. */
  get timings(): LoadTimings | null {
    return this.#timings;
  }

  elapsedMs(): number {
    return this.#clock.monotonicMs() - this.#startedMs;
  }

  /** The instance is ready; `read` is how its weights came to host memory. */
  finish(read: NativeLoadStatus): void {
    const total_ms = this.elapsedMs();
    this.#timings = {
      process_start_ms: this.helloAfterMs,
      disk_read_ms: this.wasPresent ? 0 : read.read_ms,
      disk_read_bytes: this.wasPresent ? 0 : read.bytes_total,
      model_build_ms: this.#isResume ? 0 : (this.modelBuildMs ?? 0),
      resume_ms: this.#isResume ? total_ms : 0,
      total_ms,
      ...(this.upload ? { upload_ms: this.upload.upload_ms, upload_bytes: this.upload.bytes } : {}),
    };
  }
}

/** How far the read of a load is; without one yet nothing is done. */
export function loadProgress(bytes_total: number, read?: NativeLoadStatus): LoadEvent {
  const { bytes_done, read_ms } = read ?? { bytes_done: 0, read_ms: 0 };
  const eta_ms = bytes_done === 0 ? null : Math.round((read_ms * (bytes_total - bytes_done)) / bytes_done);
  return { type: "progress", bytes_done, bytes_total, eta_ms };
}
