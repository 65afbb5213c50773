/**
 * The loop that brings the cluster to what it should be. Every gateway keeps its own knowledge fresh; the one that leads
 * also sees to what need be done once: leases, idle instances, deletions, loads without a follower, old records.
 */
import { SllmError } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import type { Fleet } from "../placement/fleet.ts";
import type { Gateways } from "../placement/gateways.ts";
import type { Loads } from "../placement/loads.ts";
import type { StartHistory } from "../placement/start-history.ts";
import type { Stops } from "../placement/stops.ts";
import type { WorkerReports } from "../placement/worker-reports.ts";
import type { Clock, Log, StateStore } from "../ports.ts";
import type { Autoscaler } from "./autoscaler.ts";
import type { EstimateSync } from "./estimate-sync.ts";
import { LastUses } from "./last-uses.ts";
import { type Leadership, leaderLease } from "./leadership.ts";
import type { Moves } from "./moves/moves.ts";
import type { Orphans } from "./orphans.ts";
import type { Preloader } from "./preloader.ts";
import type { RetentionSweep } from "./retention.ts";
import { SilenceWatch } from "./silence-watch.ts";
import { stopUnneeded } from "./stop-unneeded.ts";

export interface ReconcileDeps {
  readonly fleet: Fleet;
  readonly store: Pick<StateStore, "expireWorkers" | "purgeModel" | "touchInstance">;
  readonly estimates: EstimateSync;
  readonly leadership: Leadership;
  readonly retention: RetentionSweep;
  readonly gateways: Pick<Gateways, "keep" | "reset" | "release">;
  readonly orphans: Pick<Orphans, "turn">;
  /** Generations of gateways that are gone and are read here. */
  readonly attend: () => void;
  readonly loads: Loads;
  readonly stops: Stops;
  readonly history: StartHistory;
  readonly reports: WorkerReports;
  readonly moves: Pick<Moves, "lead">;
  readonly autoscaler: Pick<Autoscaler, "turn">;
  readonly preloader: Pick<Preloader, "turn">;
  /** How long an idle instance stays parked before it is stopped; 0 parks none. */
  readonly park_ms: number;
  readonly clock: Clock;
  readonly log: Log;
}

/** Longest pause between turns while they fail. */
const longestPause_ms = 5_000;

export class ReconcileLoop {
  readonly #deps: ReconcileDeps;
  /** Watches from the start, also while another gateway leads: who takes over knows at once who is silent. */
  readonly #silence = new SilenceWatch({
    lease_ms: limits.worker_lease_ms,
    return_ms: limits.worker_return_ms,
  });
  readonly #lastUses = new LastUses();
  readonly #stopping = new AbortController();
  #running: Promise<void> | null = null;

  constructor(deps: ReconcileDeps) {
    this.#deps = deps;
  }

  /** Resolves after the first turn, whether it succeeded or not. Turns follow one another, never overlapping. */
  start(): Promise<void> {
    if (this.#running !== null) throw new Error("the reconcile loop runs already");
    return new Promise((onFirstTurn) => {
      this.#running = this.#loop(onFirstTurn);
    });
  }

  async #loop(onFirstTurn: () => void): Promise<void> {
    const { signal } = this.#stopping;
    let failures = 0;
    while (!signal.aborted) {
      failures = await this.#tryTurn(failures);
      onFirstTurn();
      const pause_ms = Math.min(limits.reconcile_ms * 2 ** failures, longestPause_ms);
      await this.#deps.clock.sleep(pause_ms, signal);
    }
    onFirstTurn();
  }

  /** Resolves when the turn under way has ended and another gateway may lead. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
    await this.#deps.leadership.release();
    await this.#deps.gateways.release();
  }

  /** Returns how many turns have failed in a row. */
  async #tryTurn(failuresBefore: number): Promise<number> {
    const { leadership, log } = this.#deps;
    try {
      await this.turn();
      return 0;
    } catch (error) {
      this.#silence.reset();
      leadership.reset();
      this.#deps.gateways.reset();
      const code = error instanceof SllmError ? error.code : "internal";
      log.error("reconcile_failed", { code, failures: failuresBefore + 1 }, error);
      return failuresBefore + 1;
    }
  }

  /** One turn by itself, for compositions that bring their own timer. Throws what the store throws. */
  async turn(): Promise<void> {
    const { fleet, store, history, reports, estimates, leadership, clock } = this.#deps;
    await fleet.refresh();
    this.#silence.look(fleet.snapshot.workers, clock.monotonicMs());
    await leadership.keep(fleet.lease(leaderLease));
    await this.#deps.gateways.keep(fleet.leases);
    this.#deps.attend();
    if (leadership.isLeader) await this.#lead();
    // Each gateway for its own line; of what is the whole cluster's only the leader takes care.
    this.#deps.autoscaler.turn();
    this.#deps.preloader.turn();
    await this.#lastUses.write(fleet, store, clock.wallMs());
    await estimates.sync(clock.monotonicMs());
    const { models, workers } = fleet.snapshot;
    history.keepOnly((model_id) => models.some((m) => m.model_id === model_id));
    reports.keepOnly((worker_id) => workers.some((w) => w.worker_id === worker_id));
  }

  /** What one gateway does for all. */
  async #lead(): Promise<void> {
    const { fleet, loads, retention, orphans, clock } = this.#deps;
    await this.#expireWorkers();
    for (const instance of fleet.instances) if (instance.state === "loading") loads.follow(instance);
    stopUnneeded(this.#deps);
    this.#deps.moves.lead();
    await this.#purgeDeleted();
    await retention.run(clock.monotonicMs());
    await orphans.turn(clock.monotonicMs());
  }

  /** Also asked when nobody is silent: instances may be left on workers that were lost before. */
  async #expireWorkers(): Promise<void> {
    const { fleet, store, clock, log } = this.#deps;
    const silent = this.#silence.silent(clock.monotonicMs());
    if (silent.length === 0 && !hasStranded(fleet)) return;
    const lost = await store.expireWorkers(silent);
    for (const worker_id of lost) log.warn("worker_lost", { worker_id });
    await fleet.refresh();
  }

  async #purgeDeleted(): Promise<void> {
    const { fleet, store, log } = this.#deps;
    let purged = false;
    for (const { model_id, state } of fleet.snapshot.models) {
      if (state !== "deleting" || fleet.instances.some((i) => i.model_id === model_id)) continue;
      if (!(await store.purgeModel(model_id))) continue;
      log.info("model_purged", { model_id });
      purged = true;
    }
    if (purged) await fleet.refresh();
  }
}

/** Instances on workers that are lost or gone: one may have been created while its worker expired. */
function hasStranded(fleet: Fleet): boolean {
  const away = new Set<string>();
  for (const { worker_id, state } of fleet.snapshot.workers)
    if (state === "lost" || state === "gone") away.add(worker_id);
  return away.size > 0 && fleet.instances.some(({ worker_id }) => away.has(worker_id));
}
