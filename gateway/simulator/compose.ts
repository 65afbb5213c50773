/** Puts the parts of the gateway together on simulated hosts, in virtual time. */
import type { InstanceRow } from "../../schema/db/tables.ts";
import { limits } from "../../schema/limits.ts";
import type { SimulatedCluster, SimulatedSystem } from "../../schema/simulation.ts";
import { WaitQueue } from "../admission/wait-queue.ts";
import { Autoscaler } from "../control/autoscaler.ts";
import { Placer } from "../dispatch/placer.ts";
import { LearnedEstimates } from "../placement/estimates/learned-estimates.ts";
import { Fleet } from "../placement/fleet.ts";
import { Loads } from "../placement/loads.ts";
import { StartHistory } from "../placement/start-history.ts";
import { Starts } from "../placement/starts.ts";
import { Stops } from "../placement/stops.ts";
import type { Log } from "../ports.ts";
import { hostsOf, type ModelSpec, modelsOf, systemOf } from "./cluster-spec.ts";
import { ClusterStore } from "./cluster-store.ts";
import { DeviceHours } from "./device-hours.ts";
import { SimulatedHost } from "./host.ts";
import { Lives } from "./lives.ts";
import { Moves } from "./moves.ts";
import { Outcomes } from "./outcomes.ts";
import { PlainQueue } from "./plain-queue.ts";
import { SeededRandom } from "./random.ts";
import type { RequestTrace } from "./trace.ts";
import { VirtualClock } from "./virtual-clock.ts";
import { SimulatedWorkers } from "./workers.ts";

export interface ComposeOptions {
  readonly seed: number;
  /** Told of every change of an instance, for checks. */
  readonly onInstance?: (row: InstanceRow, at_ms: number) => void;
}

/** Decisions are not explained: there is nobody to read it. */
const nobodyAsks = { note: () => {} };

/** Idle instances end by so much late at most. */
const quietTurn_ms = 5_000;

/** A cluster before its first request; `defects` gathers what should not have happened. */
export function compose(cluster: SimulatedCluster, trace: RequestTrace, options: ComposeOptions) {
  const { system } = cluster;
  const { policy } = systemOf(system.policy);
  const models = modelsOf(cluster);
  const ground = makeGround(cluster, models, options);
  const { clock, store, base, estimates, defects } = ground;
  const { fleet } = base;
  const history = new StartHistory();
  const loads = new Loads({ ...base, history });
  const stops = new Stops(base);
  const starts = new Starts({ ...base, loads, stops, estimates });
  const queue = makeQueue(system, clock);
  fleet.onChanged((model_id) => queue.changed(model_id));
  const outcomes = new Outcomes(trace.count);
  // Lives need the placer, which needs the moves, which need the lives.
  const later: { lives?: Lives } = {};
  const livesOf = () => {
    if (later.lives === undefined) throw new Error("nothing lives yet");
    return later.lives;
  };
  const moves = new Moves({ ...base, starts, stops, lives: livesOf, outcomes, system });
  const clears = policy === "preemptive" || (system.migrate && policy === "startup-optimal");
  const placer = new Placer({
    ...{ ...base, starts, loads, history, queue, explanations: nobodyAsks, policy },
    ...(clears ? { clearing: moves } : {}),
    report_ms: Number.POSITIVE_INFINITY,
  });
  const reports = { of: () => null };
  const autoscaler = new Autoscaler({
    ...base,
    starts,
    queue,
    history,
    reports,
    policy,
    isLeader: () => true,
  });
  const lives = new Lives({
    ...{ ...base, queue, placer, estimates, trace, models, outcomes, hold_ms: system.hold_ms },
    onDefect: (error) => void defects.push(error),
  });
  later.lives = lives;
  return {
    ...{ ...ground, fleet, outcomes, lives, moves, autoscaler },
    unneeded: { ...base, stops, park_ms: system.park_ms },
    /** Until the next look: a cluster that nobody uses needs none before its next request. */
    pauseMs: (next_arrival_ms: number): number => {
      const isQuiet = queue.count === 0 && store.isRead && lives.isIdle;
      if (!isQuiet) return system.turn_ms;
      return Math.max(system.turn_ms, Math.min(next_arrival_ms - clock.wallMs(), quietTurn_ms));
    },
  };
}

/** Hosts, their store and their API, and the fleet that sees them. */
function makeGround(
  cluster: SimulatedCluster,
  models: readonly ModelSpec[],
  { seed, onInstance }: ComposeOptions,
) {
  const { system } = cluster;
  const { storage } = systemOf(system.policy);
  const clock = new VirtualClock();
  const hosts = hostsOf(cluster).map(({ worker_id, spec }) => new SimulatedHost(worker_id, spec, storage));
  fillDisks(hosts, models);
  const store = new ClusterStore(clock, hosts, models);
  const hours = new DeviceHours();
  store.onInstance = (row) => {
    hours.note(row, clock.wallMs());
    onInstance?.(row, clock.wallMs());
  };
  const workers = new SimulatedWorkers(clock, store, new Map(hosts.map((host) => [host.worker_id, host])));
  const estimates = new LearnedEstimates();
  const remote = { peer: system.fetch, origin: system.fetch };
  // Engines start from a reserve that is never empty: what a start takes is the model's build and init.
  const standby = { warm: 1, built: [] };
  const fleet = new Fleet(store, clock, estimates, () => standby, remote);
  const defects: unknown[] = [];
  const log: Log = {
    ...{ info: () => {}, warn: () => {} },
    error: (event, _fields, cause) => void defects.push(cause ?? new Error(event)),
  };
  const random = new SeededRandom(seed).fork("gateway");
  return {
    clock,
    store,
    hours,
    workers,
    estimates,
    defects,
    base: { fleet, store, clock, random, log, workers },
  };
}

function makeQueue({ starvation_ms, queue }: SimulatedSystem, clock: VirtualClock): WaitQueue {
  const Queue = queue === "plain" ? PlainQueue : WaitQueue;
  return new Queue({
    ...{ capacity: limits.waiting_requests, per_model: limits.waiting_per_model },
    ...{ per_tenant: limits.waiting_requests, starvation_ms, clock },
  });
}

/** Each model on so many disks as it says, one host after the other. */
function fillDisks(hosts: readonly SimulatedHost[], models: readonly ModelSpec[]): void {
  for (const [first, model] of models.entries()) {
    let copies = Math.min(model.disk_copies ?? hosts.length, hosts.length);
    for (let tried = 0; tried < hosts.length && copies > 0; tried++) {
      if (hosts[(first + tried) % hosts.length]?.store(model) === true) copies -= 1;
    }
  }
}
