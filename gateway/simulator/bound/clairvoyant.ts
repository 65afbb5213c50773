/**
 * What a schedule reaches that knows every request and its length beforehand. Requests are taken by their arrival; where
 * not all can start in time, the longest of those in the way are given up, as Moore and Hodgson do for one machine, and are
 * computed when all others are. It neither moves nor preempts nor loads ahead, so every live cluster that knew as much could
 * do the same. Better ones may exist; none is below `capacity.ts`.
 */
import type { Job } from "./capacity.ts";

export interface ClairvoyantCluster {
  readonly hosts: number;
  /** Of each host. */
  readonly devices: number;
  /** The host whose disk has a model; null where each has it. */
  readonly hostOf: (model: number) => number | null;
  /** Copies that a host's memory keeps: no more is read there, so that none ever has to go. */
  readonly copies: number;
  /** Starts whose bytes come over the network, from the disk and, later ones, from memory. */
  readonly network_load_ms: number;
  readonly disk_load_ms: number;
  readonly load_ms: number;
}

/**
 * The least time within which it starts so many of the requests of all runs together; each run finds the cluster cold.
 * Jobs by their arrivals.
 */
export function clairvoyantMs(
  runs: readonly (readonly Job[])[],
  cluster: ClairvoyantCluster,
  share: number,
  most_ms: number,
): number {
  const mayBeLate = Math.floor((1 - share) * runs.reduce((sum, jobs) => sum + jobs.length, 0));
  const isReached = (within_ms: number) => {
    let late = 0;
    for (const jobs of runs) {
      if (late > mayBeLate) return false;
      late += givenUp(jobs, cluster, within_ms, mayBeLate - late);
    }
    return late <= mayBeLate;
  };
  let [low_ms, high_ms] = [0, most_ms];
  for (let i = 0; i < steps; i++) {
    const middle_ms = (low_ms + high_ms) / 2;
    if (isReached(middle_ms)) high_ms = middle_ms;
    else low_ms = middle_ms;
  }
  return high_ms;
}

const steps = 14;

/** How many have to be given up so that all others start in time; counting ends beyond `most`. */
export function givenUp(
  jobs: readonly Job[],
  cluster: ClairvoyantCluster,
  within_ms: number,
  most: number,
): number {
  const kept = [...jobs];
  for (let count = 0; ; count++) {
    const late = firstLate(kept, cluster, within_ms);
    if (late === null || count > most) return count;
    // Of those that came within the burst before it the one that takes most.
    let longest = late;
    for (let i = late; i >= 0; i--) {
      if ((kept[late]?.arrival_ms ?? 0) - (kept[i]?.arrival_ms ?? 0) > burst_ms) break;
      if ((kept[i]?.service_ms ?? 0) > (kept[longest]?.service_ms ?? 0)) longest = i;
    }
    kept.splice(longest, 1);
  }
}

/** How far back a request that is given up still makes one start sooner. */
const burst_ms = 10_000;

interface Device {
  readonly host: number;
  free_ms: number;
  model: number | null;
}

interface Host {
  readonly inMemory: Set<number>;
  disk_free_ms: number;
  network_free_ms: number;
}

/** Place of the first job that starts too late; null when none does. */
function firstLate(jobs: readonly Job[], cluster: ClairvoyantCluster, within_ms: number): number | null {
  const hosts = Array.from(
    { length: cluster.hosts },
    (): Host => ({ inMemory: new Set(), disk_free_ms: 0, network_free_ms: 0 }),
  );
  const devices = Array.from(
    { length: cluster.hosts * cluster.devices },
    (_, i): Device => ({ host: Math.floor(i / cluster.devices), free_ms: 0, model: null }),
  );
  for (const [place, job] of jobs.entries()) {
    let best: Device | null = null;
    let start_ms = Number.POSITIVE_INFINITY;
    for (const device of devices) {
      const host = hosts[device.host];
      const at_ms = host === undefined ? Number.POSITIVE_INFINITY : startAt(job, device, host, cluster);
      // Of equals the one that is free last: the others stay for who comes next.
      if (at_ms < start_ms || (at_ms === start_ms && best !== null && device.free_ms > best.free_ms)) {
        best = device;
        start_ms = at_ms;
      }
    }
    if (best === null || start_ms - job.arrival_ms > within_ms) return place;
    const host = hosts[best.host];
    if (host !== undefined && best.model !== job.model) noteLoad(job, best.host, host, cluster, start_ms);
    best.free_ms = start_ms + job.service_ms;
    best.model = job.model;
  }
  return null;
}

function startAt(job: Job, device: Device, host: Host, cluster: ClairvoyantCluster): number {
  const free_ms = Math.max(device.free_ms, job.arrival_ms);
  if (device.model === job.model) return free_ms;
  if (host.inMemory.has(job.model)) return free_ms + cluster.load_ms;
  if (host.inMemory.size >= cluster.copies) return Number.POSITIVE_INFINITY;
  return isHome(job, device.host, cluster)
    ? Math.max(free_ms, host.disk_free_ms) + cluster.disk_load_ms
    : Math.max(free_ms, host.network_free_ms) + cluster.network_load_ms;
}

/** A link carries one load after the other. */
function noteLoad(job: Job, at: number, host: Host, cluster: ClairvoyantCluster, ready_ms: number): void {
  if (host.inMemory.has(job.model)) return;
  host.inMemory.add(job.model);
  if (isHome(job, at, cluster)) host.disk_free_ms = ready_ms;
  else host.network_free_ms = ready_ms;
}

function isHome({ model }: Job, host: number, { hostOf }: ClairvoyantCluster): boolean {
  const home = hostOf(model);
  return home === null || home === host;
}
