/** Where the time of one load or resume goes: noted while it runs, told when it is ready. */
import type { LoadEvent, LoadTimings } from "../../schema/cluster/instances.ts";
import type { HostStatus } from "../checkpoints/host-lease.ts";
import type { Clock } from "../ports.ts";
import { LoadRecorder } from "../traces/load-recorder.ts";

export class LoadRecord {
  readonly #clock: Pick<Clock, "monotonicMs">;
  readonly #startedMs: number;
  readonly #isResume: boolean;
  #timings: LoadTimings | null = null;
  /** Where its time goes, stage by stage. */
  readonly trace: LoadRecorder;
  #helloAfterMs = 0;
  /** Last known place in the queue of the disk. */
  diskPosition = 0;
  /** The weights were in host memory when it began. */
  wasPresent = false;
  /** Set with it when the weights went to discrete devices. */
  upload: { readonly bytes: number; readonly upload_ms: number } | null = null;
  /** Set when the engine has its model and its weights. */
  #modelBuildMs: number | null = null;

  /** `trace` is that of a load that was begun before; a resume begins its own. */
  constructor(clock: Pick<Clock, "monotonicMs" | "wallMs">, trace?: LoadRecorder) {
    this.#clock = clock;
    this.#startedMs = clock.monotonicMs();
    this.#isResume = trace === undefined;
    this.trace = trace ?? new LoadRecorder(clock);
  }

  /** The engine has its model and maps its weights. */
  get isBuilt(): boolean {
    return this.#modelBuildMs !== null;
  }

  /** The engine process said hello: at once when it was there. */
  hello(): void {
    this.#helloAfterMs = this.elapsedMs();
    this.trace.end("process");
  }

  /** The engine was told where the weights are; one with a skeleton has only to map them. */
  told(hasSkeleton: boolean): void {
    this.trace.begin(hasSkeleton ? "attach" : "model_build", "process", "reserve", "header_check");
  }

  /** null when nothing went to a discrete device. */
  uploaded(upload: LoadRecord["upload"]): void {
    this.upload = upload;
    if (upload !== null) this.trace.noteUploaded(upload.bytes);
  }

  /** The engine has its model and maps its weights. */
  built(
    message: { readonly model_build_ms: number; readonly weights_wait_ms: number },
    hadSkeleton: boolean,
  ): void {
    this.#modelBuildMs = hadSkeleton ? 0 : message.model_build_ms;
    this.trace.end("attach");
    this.trace.noteBuilt(message);
  }

  /** null before `finish`. */
  get timings(): LoadTimings | null {
    return this.#timings;
  }

  elapsedMs(): number {
    return this.#clock.monotonicMs() - this.#startedMs;
  }

  /** The instance is ready; `read` is how its weights came to host memory. */
  finish(read: HostStatus): void {
    const total_ms = this.elapsedMs();
    this.#timings = {
      process_start_ms: this.#helloAfterMs,
      disk_read_ms: this.wasPresent ? 0 : read.read_ms,
      disk_read_bytes: this.wasPresent ? 0 : read.bytes_total,
      model_build_ms: this.#isResume ? 0 : (this.#modelBuildMs ?? 0),
      resume_ms: this.#isResume ? total_ms : 0,
      total_ms,
      ...(this.upload ? { upload_ms: this.upload.upload_ms, upload_bytes: this.upload.bytes } : {}),
    };
  }
}

/** How far the read of a load is; without one yet nothing is done, and the disk may have a queue. */
export function loadProgress(bytes_total: number, diskPosition: number, read?: HostStatus): LoadEvent {
  if (read === undefined && diskPosition > 0) {
    const waiting_for = { link: "disk", position: diskPosition };
    return { type: "progress", bytes_done: 0, bytes_total, eta_ms: null, waiting_for };
  }
  const { bytes_done, read_ms } = read ?? { bytes_done: 0, read_ms: 0 };
  const eta_ms = bytes_done === 0 ? null : Math.round((read_ms * (bytes_total - bytes_done)) / bytes_done);
  return { type: "progress", bytes_done, bytes_total, eta_ms };
}
