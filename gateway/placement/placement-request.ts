/** What the scheduler is asked for a model: its sizes and its settings, with what the asker adds. */
import type { SchedulingPolicy } from "../../schema/vocab.ts";
import type { Random } from "../ports.ts";
import type { PlacementRequest } from "../scheduler/view.ts";
import type { FleetModel } from "./fleet.ts";
import { bookedBytes } from "./starts.ts";

type OfModel =
  | "model_id"
  | "checkpoint"
  | "weights_bytes"
  | "memory_bytes"
  | "repacked_bytes"
  | "max_instances"
  | "queue_delay_ms";

export function placementRequest(
  model: FleetModel,
  asked: Omit<PlacementRequest, OfModel>,
): PlacementRequest {
  const { model_id, checkpoint, max_instances, queue_delay_ms } = model.row;
  const memory_bytes = bookedBytes(model, false);
  return {
    ...asked,
    model_id,
    checkpoint,
    weights_bytes: model.facts.weights_bytes,
    memory_bytes,
    repacked_bytes: bookedBytes(model, true) - memory_bytes,
    max_instances: max_instances ?? Number.POSITIVE_INFINITY,
    queue_delay_ms,
  };
}

/** What a policy that draws draws with. */
export function seedFor(policy: SchedulingPolicy, random: Random): number {
  if (policy !== "random") return 0;
  return random.bytes(4).reduce((seed, byte) => seed * 256 + byte, 0);
}
