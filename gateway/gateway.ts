/** Composes a gateway from ports: the app, and what runs beside it. Binds nothing; gateway/main does. */
import type { GatewayConfig } from "../schema/config.ts";
import { type GatewayId, type ModelId, toHex, type WorkerId } from "../schema/ids.ts";
import { limits } from "../schema/limits.ts";
import { WaitQueue } from "./admission/wait-queue.ts";
import { type App, createApp } from "./app.ts";
import { Autoscaler } from "./control/autoscaler.ts";
import { EstimateSync } from "./control/estimate-sync.ts";
import { Leadership } from "./control/leadership.ts";
import type { LiveStreams } from "./control/moves/live-streams.ts";
import { Moves, type MovesDeps } from "./control/moves/moves.ts";
import { Orphans } from "./control/orphans.ts";
import { Preloader } from "./control/preloader.ts";
import { ReconcileLoop } from "./control/reconcile.ts";
import { RetentionSweep } from "./control/retention.ts";
import { Dispatcher } from "./dispatch/dispatcher.ts";
import { Explanations } from "./dispatch/explanations.ts";
import { Placer } from "./dispatch/placer.ts";
import { GenerationRecords } from "./dispatch/records.ts";
import { Resumables } from "./dispatch/resumables.ts";
import { TokenBatches } from "./dispatch/token-batches.ts";
import { LearnedEstimates } from "./placement/estimates/learned-estimates.ts";
import { Fleet } from "./placement/fleet.ts";
import { Gateways } from "./placement/gateways.ts";
import { Loads } from "./placement/loads.ts";
import { StartHistory } from "./placement/start-history.ts";
import { Starts } from "./placement/starts.ts";
import { steadyClock } from "./placement/steady-clock.ts";
import { Stops } from "./placement/stops.ts";
import { WorkerReports } from "./placement/worker-reports.ts";
import type { Clock, Log, Random, StateStore, WorkerClient } from "./ports.ts";

export interface GatewayDeps {
  readonly config: GatewayConfig;
  /** Shared with the workers: they must show it here, and `workers` shows it to them. */
  readonly cluster_token: string;
  readonly store: StateStore;
  readonly workers: WorkerClient;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly version: string;
}

export interface Gateway {
  /** Names this gateway in the lease of the leader; another one after every start. */
  readonly gateway_id: string;
  /** `app.fetch` is the request handler of every runtime. */
  readonly app: App;
  /** Starts the reconcile loop. Resolves after its first turn, whether the database answered or not. */
  start(): Promise<void>;
  /**
   * Not ready from now on; resolves when the loop and the stops under way have ended and the records so far are
   * written. Requests go on, those that wait for a load too. May be called again once they have ended.
   */
  stop(): Promise<void>;
}

export function createGateway(deps: GatewayDeps): Gateway {
  const { config, cluster_token, store, workers, clock, random, log, version } = deps;
  const world = { store, workers, clock, random, log };
  // For what lasts; records keep to the wall clock, wherever it may jump.
  const lasting = { ...world, clock: steadyClock(clock) };
  const estimates = new LearnedEstimates();
  const estimateSync = new EstimateSync(estimates, store);
  const history = new StartHistory();
  const reports = new WorkerReports();
  const standbyOf = (worker_id: WorkerId) => reports.standbyOf(worker_id);
  const fleet = new Fleet(store, lasting.clock, estimates, standbyOf);
  const loads = new Loads({ ...lasting, fleet, history });
  const stops = new Stops({ ...lasting, fleet });
  const starts = new Starts({ ...lasting, fleet, loads, stops, estimates });
  const queue = newQueue(config, clock);
  fleet.onChanged((model_id) => queue.changed(model_id));
  const explanations = new Explanations();
  const { policy, hold_ms, keep_alive_ms, park_ms, api_keys, admin_token } = config;
  const gateway_id = `g-${toHex(random.bytes(8))}`;
  const leadership = new Leadership({ store, clock, log, gateway_id });
  const isLeader = () => leadership.isLeader;
  const autoscaler = new Autoscaler({ ...lasting, fleet, starts, queue, history, reports, policy, isLeader });
  const preloader = new Preloader({ ...lasting, fleet, forecast: config.forecast, isLeader });
  const places = { fleet, starts, loads, stops, estimates, claims: queue.claims, gateway_id };
  const moves = newMoves({ ...lasting, ...places, streams: streamsOf(() => dispatcher) }, config);
  const ways = { fleet, starts, loads, history, queue, explanations, policy, clearing: moves.instances };
  const placer = new Placer({ ...lasting, ...ways });
  const records = new GenerationRecords({ store, clock, log, explanations });
  const onArrived = (model_id: ModelId) => preloader.arrived(model_id);
  const gateways = new Gateways({ store, clock: lasting.clock, gateway_id, log });
  const owner = { gateway_id, isAlive: (id: GatewayId) => gateways.isAlive(id) };
  const requests = { fleet, placer, records, estimates, queue, onArrived, hold_ms, ...owner };
  const dispatcher = new Dispatcher({ ...world, ...requests });
  const batches = new TokenBatches({ store, clock, log });
  const resumables = new Resumables({ ...world, dispatcher, fleet, batches, gateway_id });
  const orphans = new Orphans({ store, gateways, log, adopt: (id) => resumables.adopt(id) });
  const retention = newRetention({ store, log }, config);
  const kept = { fleet, loads, stops, history, reports, estimates: estimateSync, leadership, retention };
  const ahead = { autoscaler, preloader, moves };
  const streams = { gateways, orphans, attend: () => resumables.attend() };
  const loop = new ReconcileLoop({ ...lasting, ...kept, ...ahead, ...streams, park_ms });

  let stopping = false;
  const app = createApp({
    ...{ ...world, fleet, history, reports, queue, explanations, dispatcher, resumables, version },
    migrations: moves.migrations,
    ...{ api_keys, admin_token, cluster_token, keep_alive_ms },
    isStopping: () => stopping,
  });
  return {
    gateway_id,
    app,
    start: () => loop.start(),
    stop: async () => {
      stopping = true;
      await endInOrder({ loop, autoscaler, loads, moves, stops, batches, records, estimateSync, log });
    },
  };
}

interface Running {
  readonly loop: ReconcileLoop;
  readonly autoscaler: Autoscaler;
  readonly loads: Loads;
  readonly moves: Moves;
  readonly stops: Stops;
  readonly batches: TokenBatches;
  readonly records: GenerationRecords;
  readonly estimateSync: EstimateSync;
  readonly log: Log;
}

async function endInOrder(running: Running): Promise<void> {
  const { loop, autoscaler, loads, moves, stops, batches, records, estimateSync, log } = running;
  await loop.stop();
  await autoscaler.idle();
  loads.leaveUnawaited();
  await moves.close();
  await stops.close();
  await batches.close();
  await records.close();
  await estimateSync.write().catch((error: unknown) => log.error("estimates_not_written", {}, error));
}

function newRetention(
  deps: Pick<GatewayDeps, "store" | "log">,
  { retention_ms, replay_ms }: GatewayConfig,
): RetentionSweep {
  return new RetentionSweep(deps, { older_than_ms: retention_ms, replay_ms });
}

function newMoves(
  deps: Omit<MovesDeps, "settings" | "policy">,
  { policy, move_gap_tokens, move_rounds }: GatewayConfig,
): Moves {
  return new Moves({ ...deps, policy, settings: { gap_tokens: move_gap_tokens, rounds: move_rounds } });
}

/** The dispatcher comes later: its requests may want streams moved. */
function streamsOf(dispatcher: () => Dispatcher): LiveStreams {
  return {
    handOver: (id, to) => dispatcher().handOver(id, to),
    handOverEnded: (id) => dispatcher().handOverEnded(id),
  };
}

function newQueue({ starvation_ms, waiting_per_tenant }: GatewayConfig, clock: Clock): WaitQueue {
  return new WaitQueue({
    capacity: limits.waiting_requests,
    per_model: limits.waiting_per_model,
    per_tenant: waiting_per_tenant,
    starvation_ms,
    clock,
  });
}
