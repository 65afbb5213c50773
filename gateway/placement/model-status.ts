/** What a user wants to know about a model: whether a request would be served at once. Pure. */
import type { ModelObject } from "../../schema/api/models.ts";
import type { InstanceRow, ModelRow } from "../../schema/db/tables.ts";

export type ModelStatus = ModelObject["status"];

/** `failed`: no instance runs, and the last start did not succeed. */
export function modelStatus(
  model: ModelRow,
  instances: readonly InstanceRow[],
  lastStartFailed: boolean,
): ModelStatus {
  const own = instances.filter((i) => i.model_id === model.model_id && i.checkpoint === model.checkpoint);
  if (own.some((i) => i.state === "ready")) return "loaded";
  if (own.some((i) => i.state === "loading")) return "loading";
  return lastStartFailed ? "failed" : "unloaded";
}
