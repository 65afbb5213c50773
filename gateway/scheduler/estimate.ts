/** Estimates how long the bytes of a checkpoint travel to a device. Pure; bandwidths are nominal constants. */
import { type DeviceKind, type Tier, tiers } from "../../schema/vocab.ts";
import type { SourceView } from "./view.ts";

/**
 * Bytes per millisecond out of each tier: PCIe 4 x16 out of host memory, one NVMe disk, 10 Gbit/s between hosts,
 * 1 Gbit/s from outside. Only their order and rough ratio matter for a choice.
 */
const bandwidth_bytes_per_ms: Readonly<Record<Tier, number>> = {
  device: Number.POSITIVE_INFINITY,
  host: 20_000_000,
  disk: 2_000_000,
  peer: 1_000_000,
  origin: 100_000,
};

export interface StartupEstimate {
  readonly estimate_ms: number;
  /** Farthest tier that bytes have to come from. */
  readonly tier: Tier;
}

/**
 * Time until all weights are at the device, taking every byte from the nearest tier that has it; null when the
 * tiers of this worker do not hold all of them. A CPU computes on host memory in place: nothing travels from there.
 */
export function estimateStartup(
  kind: DeviceKind,
  weights_bytes: number,
  sources: readonly SourceView[],
): StartupEstimate | null {
  let covered = 0;
  let estimate_ms = 0;
  let farthest: Tier = "device";
  for (const tier of tiers) {
    const present = Math.max(0, ...sources.filter((s) => s.tier === tier).map((s) => s.bytes_present));
    const taken = Math.min(present, weights_bytes) - covered;
    if (taken <= 0) continue;
    const inPlace = tier === "host" && kind === "cpu";
    estimate_ms += inPlace ? 0 : taken / bandwidth_bytes_per_ms[tier];
    covered += taken;
    farthest = tier;
  }
  return covered >= weights_bytes ? { estimate_ms, tier: farthest } : null;
}
