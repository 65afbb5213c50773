/**
 * Estimates how long the bytes of a checkpoint travel to a device: what is queued on the links before them, then
 * they themselves. Pure. The time to build the model is left out: it is the same on every candidate.
 */
import { type Tier, tiers } from "../../schema/vocab.ts";
import type { DeviceView, LinkView, SourceView } from "./view.ts";

/**
 * Bytes per millisecond out of each tier: PCIe 4 x16 out of host memory, one NVMe disk, 10 Gbit/s between hosts,
 * 1 Gbit/s from outside. They count until loads have shown what a link does.
 */
const nominal_bytes_per_ms: Readonly<Record<Tier, number>> = {
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
 * tiers of this worker do not hold all of them. `links` and `sources` are those of the device's worker. A CPU computes
 * on host memory in place: nothing travels from there.
 */
export function estimateStartup(
  device: Pick<DeviceView, "device_id" | "kind">,
  weights_bytes: number,
  sources: readonly SourceView[],
  links: readonly LinkView[],
): StartupEstimate | null {
  const used = new Set<LinkView>();
  let covered = 0;
  let travel_ms = 0;
  let farthest: Tier = "device";
  for (const tier of tiers) {
    const present = Math.max(0, ...sources.filter((s) => s.tier === tier).map((s) => s.bytes_present));
    const taken = Math.min(present, weights_bytes) - covered;
    if (taken <= 0) continue;
    covered += taken;
    farthest = tier;
    if (tier === "host" && device.kind === "cpu") continue;
    const link = links.find((l) => l.link === linkOutOf(tier, device.device_id));
    if (link !== undefined) used.add(link);
    travel_ms += taken / bytesPerMs(tier, link);
  }
  if (covered < weights_bytes) return null;
  const queued_ms = [...used].reduce((sum, link) => sum + link.queued_ms, 0);
  return { estimate_ms: queued_ms + travel_ms, tier: farthest };
}

function linkOutOf(tier: Tier, device_id: string): string | null {
  return tier === "disk" ? "disk" : tier === "host" ? `device:${device_id}` : null;
}

function bytesPerMs(tier: Tier, link: LinkView | undefined): number {
  const measured = link?.bandwidth_bytes_per_s ?? null;
  return measured === null ? nominal_bytes_per_ms[tier] : measured / 1000;
}
