/**
 * A bound that no schedule beats, whatever it knows of the future, and whether it moves or preempts: devices work on one
 * request at a time and hold one model at a time. Of requests that come close together, all that start within some time
 * must also have been computed within that time and their own length; what the devices cannot compute by then is late.
 */

export interface Job {
  readonly arrival_ms: number;
  /** What it holds a device for, from its start to its last token. */
  readonly service_ms: number;
  readonly model: number;
}

export interface Capacity {
  readonly devices: number;
  /** Least time that a device needs to change its model. */
  readonly load_ms: number;
}

/** Requests of one group looked at: bursts are shorter. */
const longestGroup = 1_500;
/** The bound is found to a thousandth of the longest. */
const steps = 24;

/**
 * Least time within which `share` of the requests can have started; 0 where the devices are never short. Jobs by their
 * arrivals. Time grows with their number times the length of bursts.
 */
export function startupBoundMs(
  jobs: readonly Job[],
  capacity: Capacity,
  share: number,
  most_ms: number,
): number {
  const mayBeLate = Math.floor((1 - share) * jobs.length);
  if (lateAtLeast(jobs, capacity, 0) <= mayBeLate) return 0;
  let [low_ms, high_ms] = [0, most_ms];
  for (let i = 0; i < steps; i++) {
    const middle_ms = (low_ms + high_ms) / 2;
    if (lateAtLeast(jobs, capacity, middle_ms) > mayBeLate) low_ms = middle_ms;
    else high_ms = middle_ms;
  }
  return low_ms;
}

/**
 * How many requests start later than `within_ms` after they came, in any schedule: summed over groups that share none.
 *
 * Of a group, all that are not late have started when the last one may at the latest. By then the devices have computed
 * all of them but what is left of at most one on each. So what the devices have time for, the largest of the late ones
 * and the largest that still run must together make up for all the work.
 */
export function lateAtLeast(jobs: readonly Job[], { devices, load_ms }: Capacity, within_ms: number): number {
  /** Of the jobs before this place. */
  const late = new Float64Array(jobs.length + 1);
  const services = new Sizes(jobs);
  for (let first = 0; first < jobs.length; first++) {
    const begin_ms = jobs[first]?.arrival_ms ?? 0;
    const known = late[first] ?? 0;
    late[first + 1] = Math.max(late[first + 1] ?? 0, known);
    const models = new Set<number>();
    services.clear();
    let work_ms = 0;
    for (let last = first; last < Math.min(jobs.length, first + longestGroup); last++) {
      const job = jobs[last];
      if (job === undefined) break;
      models.add(job.model);
      services.add(job.service_ms);
      work_ms += job.service_ms;
      // Each device may have had one of the models before the first of them came.
      const loads_ms = Math.max(0, models.size - devices) * load_ms;
      const excess_ms = work_ms + loads_ms - devices * (job.arrival_ms + within_ms - begin_ms);
      // One that is late takes its own work away, and at most one load.
      const some = excess_ms > 0 ? services.leastBeyond(devices, excess_ms, load_ms) : 0;
      late[last + 1] = Math.max(late[last + 1] ?? 0, known + some);
      // With so long a pause no later job adds to what these lack.
      if (excess_ms < -devices * (within_ms + pause_ms)) break;
    }
  }
  return late[jobs.length] ?? 0;
}

/** Counts of service times by size, each rounded up to a two-hundredth of the longest. */
class Sizes {
  readonly #step_ms: number;
  readonly #counts = new Int32Array(sizeSteps + 1);

  constructor(jobs: readonly Job[]) {
    this.#step_ms = jobs.reduce((longest, { service_ms }) => Math.max(longest, service_ms), 0) / sizeSteps;
  }

  clear(): void {
    this.#counts.fill(0);
  }

  add(service_ms: number): void {
    const size = this.#step_ms === 0 ? 0 : Math.ceil(service_ms / this.#step_ms - roundingError);
    this.#counts[size] = (this.#counts[size] ?? 0) + 1;
  }

  /** How many beyond the `running` largest have to go, each with a load, until all these together are so much. */
  leastBeyond(running: number, sum_ms: number, load_ms: number): number {
    let left_ms = sum_ms;
    let free = running;
    let gone = 0;
    for (let size = sizeSteps; size >= 0 && left_ms > 0; size--) {
      const each_ms = size * this.#step_ms;
      let count = this.#counts[size] ?? 0;
      const run = Math.min(free, count);
      free -= run;
      left_ms -= run * each_ms;
      count -= run;
      if (count === 0 || left_ms <= 0) continue;
      const needed = Math.min(count, Math.ceil(left_ms / (each_ms + load_ms)));
      gone += needed;
      left_ms -= needed * (each_ms + load_ms);
    }
    return gone;
  }
}

const sizeSteps = 200;
/** What is a whole number of steps stays one. */
const roundingError = 1e-9;

/** Free time of all devices after which a burst is over. */
const pause_ms = 20_000;
