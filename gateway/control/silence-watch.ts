/**
 * Which workers have been silent for too long. No clock of another machine counts: a worker lives while its reports, as
 * the database shows them, go on changing, and silence is measured by this gateway's own clock that never jumps.
 */
import type { WorkerRow } from "../../schema/db/tables.ts";
import type { WorkerId } from "../../schema/ids.ts";
import type { LastReport } from "../ports.ts";

export interface SilenceLimits {
  /** Silence after which a worker counts as lost. */
  readonly lease_ms: number;
  /**
   * The same for one that has not been heard since the database or this gateway was away: nobody could report then, and
   * what lives may need this long to report again.
   */
  readonly return_ms: number;
}

interface Seen {
  readonly report: LastReport;
  readonly since_ms: number;
  /** False: nothing has come since the watch began, so the worker may be on its way back. */
  readonly wasHeard: boolean;
}

/** Holds no clock: whoever looks brings the time, monotonic and of one process. */
export class SilenceWatch {
  readonly #limits: SilenceLimits;
  #seen = new Map<WorkerId, Seen>();
  #lastLook_ms: number | null = null;

  constructor(limits: SilenceLimits) {
    this.#limits = limits;
  }

  /** The database answered: this is how the workers stand. After a gap of a lease, for whatever cause, all begins anew. */
  look(workers: readonly WorkerRow[], now_ms: number): void {
    if (this.#lastLook_ms !== null && now_ms - this.#lastLook_ms >= this.#limits.lease_ms) this.reset();
    const isBegin = this.#lastLook_ms === null;
    this.#lastLook_ms = now_ms;
    const seen = new Map<WorkerId, Seen>();
    for (const row of workers) {
      if (row.state !== "ready" && row.state !== "draining") continue;
      const before = this.#seen.get(row.worker_id);
      if (before !== undefined && isSame(before.report, row)) seen.set(row.worker_id, before);
      // What appears in the middle of the watch has reported just now.
      else seen.set(row.worker_id, { report: row, since_ms: now_ms, wasHeard: !isBegin });
    }
    this.#seen = seen;
  }

  /** The database did not answer: what was seen before says nothing any more. */
  reset(): void {
    this.#seen.clear();
    this.#lastLook_ms = null;
  }

  /** Workers whose last report is too old, with that report. */
  silent(now_ms: number): LastReport[] {
    const { lease_ms, return_ms } = this.#limits;
    return [...this.#seen.values()]
      .filter(({ since_ms, wasHeard }) => now_ms - since_ms > (wasHeard ? lease_ms : return_ms))
      .map(({ report }) => report);
  }
}

function isSame(a: LastReport, b: LastReport): boolean {
  return a.incarnation === b.incarnation && a.heartbeat_sequence === b.heartbeat_sequence;
}
