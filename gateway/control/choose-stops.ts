/** Which instances should end: idle beyond their keep-alive, not wanted any more, or half stopped. Pure. */
import type { InstanceRow, ModelRow } from "../../schema/db/tables.ts";
import type { InstanceId } from "../../schema/ids.ts";

export interface UsageView {
  readonly now_ms: number;
  inFlight(instance_id: InstanceId): number;
  lastUsedMs(instance_id: InstanceId): number;
}

export interface Stop {
  readonly instance: InstanceRow;
  readonly reason: string;
}

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
    const reason = reasonToStop(instance, models, usage);
    if (reason !== null) stops.push({ instance, reason });
  }
  return stops;
}

function reasonToStop(instance: InstanceRow, models: readonly ModelRow[], usage: UsageView): string | null {
  if (instance.state === "draining") return "draining";
  if (instance.state !== "ready" || usage.inFlight(instance.instance_id) > 0) return null;
  const idle_ms = usage.now_ms - usage.lastUsedMs(instance.instance_id);
  const model = models.find((m) => m.model_id === instance.model_id);
  if (model?.state === "active" && model.checkpoint === instance.checkpoint) {
    return idle_ms >= model.keep_alive_ms ? "idle" : null;
  }
  if (idle_ms < unwantedIdle_ms) return null;
  return model?.state === "active" ? "runs an older checkpoint" : "the model was deleted";
}
