/** Notes when the stages of one load begin and end, and makes its trace when it is over. */
import type { LoadRequest } from "../../schema/cluster/instances.ts";
import type { LoadStage, LoadTrace, TracedStage } from "../../schema/cluster/loads.ts";
import type { WireError } from "../../schema/error.ts";
import type { HostLease } from "../checkpoints/host-lease.ts";
import type { Clock } from "../ports.ts";
import { criticalPath } from "./critical-path.ts";

/** What only the end of a load can tell. */
export interface LoadEnd {
  readonly outcome: LoadTrace["outcome"];
  readonly error: WireError | null;
}

export class LoadRecorder {
  readonly #clock: Pick<Clock, "monotonicMs">;
  readonly #startedAt: Date;
  readonly #startedMs: number;
  readonly #stages: { stage: LoadStage; start_ms: number; end_ms: number | null; after: LoadStage[] }[] = [];
  #source: LoadTrace["source"] = null;
  /** Read from disk for this load. */
  #bytes = { direct: 0, cached: 0, buffered: 0, uploaded: 0 };
  #read: LoadTrace["read"] = null;

  constructor(clock: Pick<Clock, "monotonicMs" | "wallMs">) {
    this.#clock = clock;
    this.#startedAt = new Date(clock.wallMs());
    this.#startedMs = clock.monotonicMs();
  }

  /** Begins a stage that needed the end of others; one that was begun before is left as it is. */
  begin(stage: LoadStage, ...after: LoadStage[]): void {
    if (this.#stages.some((s) => s.stage === stage)) return;
    this.#stages.push({ stage, start_ms: this.#now(), end_ms: null, after });
  }

  /** Ends a stage; one that was not begun, or has ended, is left as it is. */
  end(stage: LoadStage, atMs = this.#now()): void {
    const found = this.#stages.find((s) => s.stage === stage);
    if (found !== undefined) found.end_ms ??= Math.max(found.start_ms, atMs);
  }

  /** Ends a stage so many milliseconds after its begin, as whoever did it has measured. */
  endAfter(stage: LoadStage, ms: number): void {
    const found = this.#stages.find((s) => s.stage === stage);
    if (found !== undefined) this.end(stage, found.start_ms + ms);
  }

  /** Notes how the weights came, and when the last of them; `was_present` may hold since an earlier load. */
  noteRead(lease: Pick<HostLease, "was_begun" | "status">, was_present: boolean): void {
    const { state, read_ms, trace } = lease.status();
    const was_begun = lease.was_begun && !was_present;
    if (state !== "loading") this.endAfter("read", read_ms);
    this.#source = was_present ? "host" : was_begun ? "disk" : "shared";
    if (!was_begun) return;
    const { direct_bytes: direct, cached_bytes: cached, buffered_bytes: buffered } = trace;
    this.#bytes = { ...this.#bytes, direct, cached, buffered };
    const { first_read_ms, first_verified_ms, last_read_ms } = trace;
    const { memory_wait_ms, fault_ms, digest_ms, retries, rereads } = trace;
    const work = { memory_wait_ms, fault_ms, digest_ms, retries, rereads };
    this.#read = { first_read_ms, first_verified_ms, last_read_ms, ...work };
  }

  noteUploaded(bytes: number): void {
    this.#bytes = { ...this.#bytes, uploaded: bytes };
  }

  /** Notes that the engine has built its model; it waits for bytes only afterwards. */
  noteBuilt({ model_build_ms, weights_wait_ms }: { model_build_ms: number; weights_wait_ms: number }): void {
    this.endAfter("model_build", model_build_ms);
    if (weights_wait_ms > 0) this.begin("weights_wait", "model_build", "read");
  }

  /** The trace of the load, which ends now; stages under way end with it. */
  finish(
    request: Pick<LoadRequest, "instance_id" | "model_id" | "checkpoint">,
    weights_bytes: number,
    { outcome, error }: LoadEnd,
  ): LoadTrace {
    const { instance_id, model_id, checkpoint } = request;
    const total_ms = this.#now();
    const stages: TracedStage[] = this.#stages.map(({ stage, start_ms, end_ms, after }) => ({
      stage,
      start_ms,
      end_ms: end_ms ?? total_ms,
      after: after.filter((one) => this.#stages.some((s) => s.stage === one)),
    }));
    return {
      instance_id,
      model_id,
      checkpoint,
      started_at: this.#startedAt.toISOString(),
      outcome,
      error,
      total_ms,
      source: this.#source,
      bytes: { weights: weights_bytes, ...this.#bytes },
      read: this.#read,
      stages,
      critical_path: criticalPath(stages, total_ms),
    };
  }

  /** Milliseconds since the load began, to a hundredth. */
  #now(): number {
    return Math.round((this.#clock.monotonicMs() - this.#startedMs) * 100) / 100;
  }
}
