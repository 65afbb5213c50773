/** A model that no device of the cluster can ever hold is refused when it is deployed, not at its first request. */
import type { Manifest } from "../../schema/checkpoint/manifest.ts";
import { SllmError } from "../../schema/error.ts";
import { type ContextSettings, instanceMemoryBytes } from "../../schema/memory.ts";
import type { ClusterSnapshot } from "../ports.ts";

/**
 * Throws `deployment_too_large` with both numbers. Workers that are lost may come back, so their devices count; without
 * any worker nothing is known, and everything may be deployed.
 */
export function checkFits(
  { workers, devices }: Pick<ClusterSnapshot, "workers" | "devices">,
  { model, weights }: Manifest,
  settings: ContextSettings,
): void {
  const gone = new Set(workers.filter((w) => w.state === "gone").map((w) => w.worker_id));
  const [largest] = devices
    .filter((d) => !gone.has(d.worker_id))
    .toSorted((a, b) => b.memory_bytes - a.memory_bytes);
  if (largest === undefined) return;
  const needed = instanceMemoryBytes(model, weights.bytes, settings);
  const { context_tokens, slots } = settings;
  if (needed <= largest.memory_bytes) return;
  const needs = `It needs ${needed} bytes with a context of ${context_tokens} tokens and ${slots} slots`;
  const { device_id, worker_id, memory_bytes } = largest;
  const has = `the largest device, ${device_id} of worker ${worker_id}, gives models ${memory_bytes}`;
  throw new SllmError("deployment_too_large", `${needs}; ${has}.`, { param: "settings" });
}
