/** Which instances should park or end: idle beyond their keep-alive, not wanted any more, or half stopped. Pure. */
import type { InstanceRow, ModelRow } from "../../schema/db/tables.ts";
import type { InstanceId } from "../../schema/ids.ts";

export interface UsageView {
  readonly now_ms: number;
  /** How long an instance stays parked; 0: none is parked. */
  readonly park_ms: number;
  /** Whether an instance's device can give its memory back without the process. */
  canPark(instance: InstanceRow): boolean;
  inFlight(instance_id: InstanceId): number;
  lastUsedMs(instance_id: InstanceId): number;
}

export interface Stop {
  readonly instance: InstanceRow;
  readonly how: "park" | "stop";
  readonly reason: string;
}

/** What an instance cannot change. */
const settings = ["context_tokens", "slots", "kv_tokens", "deterministic"] as const;

/** An unwanted instance that turns out to be in use elsewhere is left alone this long before it is tried again. */
const unwantedIdle_ms = 1_000;

/** Running work is never chosen: not what is in use here, and the worker refuses what is in use elsewhere. */
export function chooseStops(
  instances: readonly InstanceRow[],
  models: readonly ModelRow[],
  usage: UsageView,
): readonly Stop[] {
  const stops: Stop[] = [];
  for (const instance of instances) {
    const wanted = whatToDo(instance, models, usage);
    if (wanted !== null) stops.push({ instance, ...wanted });
  }
  return stops;
}

function whatToDo(
  instance: InstanceRow,
  models: readonly ModelRow[],
  usage: UsageView,
): Omit<Stop, "instance"> | null {
  const stop = (reason: string) => ({ how: "stop", reason }) as const;
  if (instance.state === "draining") return stop("draining");
  const isParked = instance.state === "parked";
  if ((!isParked && instance.state !== "ready") || usage.inFlight(instance.instance_id) > 0) return null;
  const idle_ms = usage.now_ms - usage.lastUsedMs(instance.instance_id);
  const model = models.find((m) => m.model_id === instance.model_id);
  if (model?.state !== "active" || model.checkpoint !== instance.checkpoint) {
    if (idle_ms < unwantedIdle_ms) return null;
    return stop(model?.state === "active" ? "runs an older checkpoint" : "the model was deleted");
  }
  if (!isParked) {
    if (idle_ms < model.keep_alive_ms) return null;
    return usage.park_ms > 0 && usage.canPark(instance) ? { how: "park", reason: "idle" } : stop("idle");
  }
  // It would come back with the settings it was started with.
  if (settings.some((name) => model[name] !== instance[name])) return stop("has older settings");
  return idle_ms >= model.keep_alive_ms + usage.park_ms ? stop("parked long enough") : null;
}
