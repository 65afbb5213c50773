/** A model that no device of the cluster can ever hold is refused when it is deployed, not at its first request. */
import type { Manifest } from "../../schema/checkpoint/manifest.ts";
import type { DeviceRow } from "../../schema/db/tables.ts";
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
  const here = devices.filter((d) => !gone.has(d.worker_id));
  const needed = (device: DeviceRow) =>
    instanceMemoryBytes(model, weights.bytes, { ...settings, repacks: device.repacks });
  const lacking = (device: DeviceRow) => needed(device) - device.memory_bytes;
  const [closest] = here.toSorted((a, b) => lacking(a) - lacking(b));
  if (closest === undefined || lacking(closest) <= 0) return;
  const { context_tokens, slots } = settings;
  const { device_id, worker_id, memory_bytes } = closest;
  const needs = `It needs ${needed(closest)} bytes with a context of ${context_tokens} tokens and ${slots} slots`;
  const has = `the largest device, ${device_id} of worker ${worker_id}, gives models ${memory_bytes}`;
  throw new SllmError("deployment_too_large", `${needs}; ${has}.`, { param: "settings" });
}
