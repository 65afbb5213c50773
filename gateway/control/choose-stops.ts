/**
 * Which instances should park or end: idle beyond their keep-alive, more than allowed, not wanted any more, or half
 * stopped. Of the instances of one model the least useful go first, and as many stay as it always has. Pure.
 */
import type { InstanceRow, ModelRow } from "../../schema/db/tables.ts";
import type { InstanceId, ModelId } from "../../schema/ids.ts";

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
  const byId = new Map(models.map((m) => [m.model_id, m] as const));
  const serving = new Map<ModelId, number>();
  for (const instance of instances) {
    const model = byId.get(instance.model_id);
    if (model === undefined || !serves(instance, model)) continue;
    serving.set(instance.model_id, (serving.get(instance.model_id) ?? 0) + 1);
  }
  const stops: Stop[] = [];
  for (const instance of leastUsefulFirst(instances, usage)) {
    const model = byId.get(instance.model_id);
    const count = serving.get(instance.model_id) ?? 0;
    const wanted = whatToDo(instance, model, count, usage);
    if (wanted === null) continue;
    stops.push({ instance, ...wanted });
    if (model !== undefined && serves(instance, model)) serving.set(instance.model_id, count - 1);
  }
  return stops;
}

/** The one that was used longest ago is needed least: requests go to the first that has a free slot. */
function leastUsefulFirst(instances: readonly InstanceRow[], usage: UsageView): readonly InstanceRow[] {
  return instances.toSorted(
    (a, b) =>
      usage.lastUsedMs(a.instance_id) - usage.lastUsedMs(b.instance_id) ||
      (a.instance_id < b.instance_id ? 1 : -1),
  );
}

/** Counts towards the instances that a model always has. */
function serves(instance: InstanceRow, model: ModelRow): boolean {
  const runs = instance.state === "ready" || instance.state === "loading";
  return runs && instance.checkpoint === model.checkpoint && !hasOlderSettings(instance, model);
}

function hasOlderSettings(instance: InstanceRow, model: ModelRow): boolean {
  return settings.some((name) => model[name] !== instance[name]);
}

function whatToDo(
  instance: InstanceRow,
  model: ModelRow | undefined,
  serving: number,
  usage: UsageView,
): Omit<Stop, "instance"> | null {
  const stop = (reason: string) => ({ how: "stop", reason }) as const;
  if (instance.state === "draining") return stop("draining");
  const isParked = instance.state === "parked";
  if ((!isParked && instance.state !== "ready") || usage.inFlight(instance.instance_id) > 0) return null;
  const idle_ms = usage.now_ms - usage.lastUsedMs(instance.instance_id);
  if (model?.state !== "active" || model.checkpoint !== instance.checkpoint) {
    if (idle_ms < unwantedIdle_ms) return null;
    return stop(model?.state === "active" ? "runs an older checkpoint" : "the model was deleted");
  }
  const isOlder = hasOlderSettings(instance, model);
  // It would come back with the settings it was started with.
  if (isParked && isOlder) return stop("has older settings");
  if (isParked) return idle_ms >= model.keep_alive_ms + usage.park_ms ? stop("parked long enough") : null;
  // One that is always there would never idle long enough to make place for one with the new settings.
  if (isOlder && model.min_instances > 0 && idle_ms >= unwantedIdle_ms) return stop("has older settings");
  if (serves(instance, model) && serving <= model.min_instances) return null;
  const isTooMany = model.max_instances !== null && serving > model.max_instances;
  if (isTooMany && idle_ms >= unwantedIdle_ms) return stop("more than allowed");
  if (idle_ms < model.keep_alive_ms) return null;
  return usage.park_ms > 0 && usage.canPark(instance) ? { how: "park", reason: "idle" } : stop("idle");
}
