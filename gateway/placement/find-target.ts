/** From the `model` of a request to a deployed model or one of its adapters; refusals say what there is. */
import type { AdapterRow } from "../../schema/db/tables.ts";
import { SllmError } from "../../schema/error.ts";
import { parseAdapterId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { Fleet, FleetModel } from "./fleet.ts";

/** What the `model` of a request names. */
export interface Target {
  readonly model: FleetModel;
  /** null: the model as it is. */
  readonly adapter: AdapterRow | null;
}

/** A model that takes requests, perhaps with an adapter; throws `model_not_found` or `adapter_not_found`. */
export async function findTarget(fleet: Fleet, id: string): Promise<Target> {
  const target = await lookUpTarget(fleet, id);
  if (target !== null) return target;
  const named = parseAdapterId(id);
  if (named !== null && fleet.model(named.model_id)?.row.state === "active") {
    throw adapterNotFound(id, fleet.adaptersOf(named.model_id));
  }
  throw modelNotFound(id);
}

/** The same with null for a name that is unknown, which reads the store. */
async function lookUpTarget(fleet: Fleet, id: string): Promise<Target | null> {
  await fleet.known();
  const known = knownTarget(fleet, id);
  if (known !== null) return known;
  await fleet.refresh();
  return knownTarget(fleet, id);
}

/** The name of a model comes before that of an adapter. */
function knownTarget(fleet: Fleet, id: string): Target | null {
  const model = fleet.model(id);
  if (model?.row.state === "active") return { model, adapter: null };
  const named = parseAdapterId(id);
  const base = named === null ? null : fleet.model(named.model_id);
  const adapter = base?.adapters.find((one) => one.name === named?.name);
  return base?.row.state === "active" && adapter !== undefined ? { model: base, adapter } : null;
}

export function modelNotFound(id: string): SllmError {
  return new SllmError("model_not_found", `The model '${id}' is not deployed.`, { param: "model" });
}

/** `id` as it was asked for, with the adapters of the model that it names. */
export function adapterNotFound(id: string, adapters: readonly Pick<AdapterRow, "name">[]): SllmError {
  const names = adapters.slice(0, limits.named_adapters).map(({ name }) => name);
  const more = adapters.length - names.length;
  const has = names.length === 0 ? "none" : `${names.join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
  const message = `There is no adapter '${id}'. Adapters of the model: ${has}.`;
  return new SllmError("adapter_not_found", message, { param: "model" });
}
