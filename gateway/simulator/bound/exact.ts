/**
 * The best schedule of a few requests on a few devices, found by trying all that can be better: it knows the future, and
 * starts each model when one of its requests has come, as policies do. Nothing is moved or preempted.
 */
import type { Job } from "./capacity.ts";

export interface SmallCluster {
  readonly devices: number;
  /** Between two models on a device, and before the first. */
  readonly load_ms: number;
}

/** Jobs beyond it would take too long: all orders on all devices are tried. */
export const mostJobs = 8;

/** Sum of the times from arrival to start, the least there is. Throws a RangeError for more jobs than `mostJobs`. */
export function leastStartupSumMs(jobs: readonly Job[], { devices, load_ms }: SmallCluster): number {
  if (jobs.length > mostJobs) throw new RangeError(`at most ${mostJobs} jobs, not ${jobs.length}`);
  let best_ms = Number.POSITIVE_INFINITY;
  const isDone = new Array<boolean>(jobs.length).fill(false);
  /** Devices are filled one after the other: an order on each says all. */
  const extend = (
    device: number,
    model: number | null,
    free_ms: number,
    left: number,
    sum_ms: number,
  ): void => {
    if (sum_ms >= best_ms) return;
    if (left === 0) {
      best_ms = sum_ms;
      return;
    }
    for (const [i, job] of jobs.entries()) {
      if (isDone[i] === true) continue;
      const start_ms = Math.max(job.arrival_ms, free_ms) + (job.model === model ? 0 : load_ms);
      isDone[i] = true;
      extend(device, job.model, start_ms + job.service_ms, left - 1, sum_ms + start_ms - job.arrival_ms);
      isDone[i] = false;
    }
    if (device + 1 < devices) extend(device + 1, null, 0, left, sum_ms);
  };
  extend(0, null, 0, jobs.length, 0);
  return best_ms;
}
