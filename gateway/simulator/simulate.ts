/**
 * A whole cluster in one process and in its own time: the gateway's scheduler, queue, placement and autoscaler, on hosts
 * that only say how long things take. The same cluster, trace and seed give the same result, to the last bit.
 */
import type { InstanceRow } from "../../schema/db/tables.ts";
import type { SimulatedCluster } from "../../schema/simulation.ts";
import type { Tier } from "../../schema/vocab.ts";
import { stopUnneeded } from "../control/stop-unneeded.ts";
import { checkCluster } from "./check-cluster.ts";
import { compose } from "./compose.ts";
import type { Outcomes } from "./outcomes.ts";
import type { RequestTrace } from "./trace.ts";
import type { Settle } from "./virtual-clock.ts";

export interface SimulateOptions {
  readonly seed: number;
  readonly settle: Settle;
  /** Told of every change of an instance, for checks. */
  readonly onInstance?: (row: InstanceRow, at_ms: number) => void;
  /** Told now and then how many requests have ended. */
  readonly onProgress?: (ended: number) => void;
}

export interface Simulation {
  readonly outcomes: Outcomes;
  /** Until the last request ended. */
  readonly duration_ms: number;
  /** Devices with an instance, summed over time. */
  readonly device_hours: number;
  readonly loads: Readonly<Record<Tier, number>>;
  readonly resumes: number;
  readonly migrations: number;
  readonly migrations_dropped: number;
  readonly preemptions: number;
}

/** Runs all requests of the trace to their end. Throws what should not happen; a model that nothing can run is refused. */
export async function simulate(
  cluster: SimulatedCluster,
  trace: RequestTrace,
  options: SimulateOptions,
): Promise<Simulation> {
  checkCluster(cluster, trace);
  const world = compose(cluster, trace, options);
  const { clock, outcomes, lives, moves, workers, defects } = world;
  let next = 0;
  const next_ms = () => trace.arrival_ms[next] ?? Number.POSITIVE_INFINITY;
  const turn = async () => {
    lives.countTokens();
    await world.fleet.refresh();
    stopUnneeded(world.unneeded);
    world.autoscaler.turn();
  };
  await turn();
  const tick = () => {
    if (lives.ended === trace.count || defects.length > 0) return clock.stop();
    turn().catch((error: unknown) => defects.push(error));
    options.onProgress?.(lives.ended);
    clock.at(clock.wallMs() + world.pauseMs(next_ms()), tick);
  };
  const arrive = () => {
    lives.arrive(next);
    next += 1;
    if (next < trace.count) clock.at(next_ms(), arrive);
  };
  clock.at(0, tick);
  if (trace.count > 0) clock.at(next_ms(), arrive);
  await clock.run(options.settle);
  if (defects.length > 0) throw defects[0];
  const duration_ms = outcomes.end_ms.reduce((last, end_ms) => Math.max(last, end_ms), 0);
  return {
    ...{ outcomes, duration_ms, device_hours: world.hours.until(duration_ms), loads: workers.loads },
    ...{ resumes: workers.resumes, migrations: moves.moved, migrations_dropped: moves.dropped },
    preemptions: outcomes.preemptions.reduce((sum, count) => sum + count, 0),
  };
}
