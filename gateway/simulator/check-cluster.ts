/** Refuses what a simulated cluster can never serve before anything runs. Pure. */
import { SllmError } from "../../schema/error.ts";
import type { SimulatedCluster } from "../../schema/simulation.ts";
import { type ModelSpec, modelsOf, systemOf } from "./cluster-spec.ts";
import type { RequestTrace } from "./trace.ts";

/** Throws `model_too_large` or `checkpoint_unavailable` for the first model of the trace that nothing could run. */
export function checkCluster(cluster: SimulatedCluster, trace: RequestTrace): void {
  const models = modelsOf(cluster);
  for (const place of new Set(trace.model)) {
    const model = models[place];
    if (model === undefined)
      throw new RangeError(`the trace names model ${place}, the cluster has ${models.length}`);
    checkModel(cluster, model);
  }
}

function checkModel(
  cluster: SimulatedCluster,
  { model_id, memory_bytes, disk_copies, weights_bytes }: ModelSpec,
): void {
  const largest_bytes = Math.max(...cluster.hosts.map(({ device_memory_bytes }) => device_memory_bytes));
  if (memory_bytes > largest_bytes) {
    const needs = `'${model_id}' needs ${memory_bytes} bytes with its context`;
    throw new SllmError(
      "model_too_large",
      `${needs}; the largest device of the cluster has ${largest_bytes}.`,
    );
  }
  const { system } = cluster;
  if (system.fetch) return;
  const keeps = systemOf(system.policy).storage.disk_tier === "kept";
  const fits = cluster.hosts.some(({ disk_bytes }) => disk_bytes >= weights_bytes);
  if (keeps && disk_copies !== 0 && fits) return;
  throw new SllmError(
    "checkpoint_unavailable",
    `No disk of the cluster holds '${model_id}', and nothing is fetched.`,
  );
}
