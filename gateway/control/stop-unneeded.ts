/** Parks and stops what nobody needs, as choose-stops.ts says. */
import type { InstanceRow } from "../../schema/db/tables.ts";
import type { Fleet } from "../placement/fleet.ts";
import type { Stops } from "../placement/stops.ts";
import type { Clock, Log } from "../ports.ts";
import { chooseStops } from "./choose-stops.ts";

export interface StopUnneededDeps {
  readonly fleet: Fleet;
  readonly stops: Stops;
  /** How long an idle instance stays parked before it is stopped; 0 parks none. */
  readonly park_ms: number;
  readonly clock: Pick<Clock, "wallMs">;
  readonly log: Log;
}

/** Begins stops without waiting for them: an engine that is slow to leave must not hold up the loop. */
export function stopUnneeded({ fleet, stops, park_ms, clock, log }: StopUnneededDeps): void {
  const usage = {
    now_ms: clock.wallMs(),
    park_ms,
    // A discrete device keeps the memory of a model as long as its process lives.
    canPark: (instance: InstanceRow) => fleet.deviceKind(instance) === "cpu",
    inFlight: (instance_id: string) => fleet.inFlight(instance_id),
    lastUsedMs: (instance_id: string) => fleet.lastUsedMs(instance_id),
  };
  for (const { instance, how, reason } of chooseStops(fleet.instances, fleet.snapshot.models, usage)) {
    if (stops.isStopping(instance.instance_id)) continue;
    stops[how](instance, reason).catch((error: unknown) => {
      log.error(`${how}_failed`, { instance_id: instance.instance_id }, error);
    });
  }
}
