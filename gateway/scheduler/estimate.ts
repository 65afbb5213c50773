/**
 * Estimates how long an instance takes to become ready on a device: every byte from the nearest tier that has it, all
 * links at work at once, so the slowest counts: what is queued on it, then our own bytes. The engine builds its model
 * meanwhile; what comes after both is the init. Pure.
 */
import type { CheckpointDigest } from "../../schema/ids.ts";
import type { Tier } from "../../schema/vocab.ts";
import { type ModelEstimates, nominal_bytes_per_ms, type StartHow, type StartState } from "./estimates.ts";
import type { ClusterView, DeviceNode, HostNode, LinkView } from "./view.ts";

/** What of a start is the same on all devices of one host. */
export interface HostTravel {
  /** Until the last byte is in host memory. */
  readonly arrival_ms: number;
  /** Of that, behind the loads of others. */
  readonly queued_ms: number;
  /** Farthest tier that bytes have to come from. */
  readonly tier: Tier;
  /** Bytes per millisecond by link of this host, as learned. */
  readonly learned: ReadonlyMap<string, number> | null;
  readonly weights_bytes: number;
}

export type TierBytes = Readonly<Record<Tier, number>>;

export const noBytes: TierBytes = { device: 0, host: 0, disk: 0, peer: 0, origin: 0 };

/** Whether all bytes can be had at all, and from how far; null when some are nowhere in reach. */
export function estimateTravel(
  view: ClusterView,
  model: ModelEstimates,
  host: HostNode,
  { weights_bytes, now_ms }: { readonly weights_bytes: number; readonly now_ms: number },
  bytes: TierBytes,
  elsewhere: boolean,
): HostTravel | null {
  const learned = view.estimates.links(host.worker_id);
  // Bytes at one device help another only through host memory; where the device is the processors both are one.
  const inHost = Math.min(weights_bytes, Math.max(bytes.host, bytes.device));
  if (inHost >= weights_bytes) {
    return { arrival_ms: 0, queued_ms: 0, tier: "host", learned, weights_bytes };
  }
  let covered = inHost;
  let arrival_ms = 0;
  let queued_ms = 0;
  let tier: Tier = "host";
  const take = (from: "disk" | "peer" | "origin", present: number, link: LinkView | null) => {
    const taken = Math.min(present, weights_bytes) - covered;
    if (taken <= 0) return;
    covered += taken;
    tier = from;
    const begun_ms = begunMs(host, now_ms, from !== "disk");
    const before_ms = Math.max(link?.queued_ms ?? 0, begun_ms);
    queued_ms = Math.max(queued_ms, before_ms);
    const own = from === "disk" ? model.diskBytesPerMs(host.worker_id) : null;
    const rate = own ?? bytesPerMs(from, linkName[from], link, learned);
    arrival_ms = Math.max(arrival_ms, before_ms + taken / rate);
  };
  take("disk", bytes.disk, host.disk);
  take("peer", view.remote.peer && elsewhere ? weights_bytes : bytes.peer, host.network);
  take("origin", view.remote.origin ? weights_bytes : bytes.origin, host.network);
  return covered < weights_bytes ? null : { arrival_ms, queued_ms, tier, learned, weights_bytes };
}

/**
 * Until the loads that were begun here have their bytes over the same link: the worker's last report may not have heard
 * of them yet.
 */
function begunMs(host: HostNode, now_ms: number, is_fetched: boolean): number {
  let rest_ms = 0;
  for (const { usage } of host.loading) {
    if (usage.arrives_at_ms !== null && (usage.is_fetched ?? false) === is_fetched)
      rest_ms = Math.max(rest_ms, usage.arrives_at_ms - now_ms);
  }
  return rest_ms;
}

const linkName = { disk: "disk", peer: "network", origin: "origin" } as const;

/** Until the weights are at the device. A CPU computes on host memory in place: nothing travels from there. */
export function arrivalMs(device: DeviceNode, travel: HostTravel): number {
  if (device.kind === "cpu") return travel.arrival_ms;
  const { bus, bus_name } = device;
  const upload_ms = travel.weights_bytes / bytesPerMs("host", bus_name, bus, travel.learned);
  return Math.max(travel.arrival_ms, (bus?.queued_ms ?? 0) + upload_ms);
}

export function readyMs(
  model: ModelEstimates,
  device: DeviceNode,
  travel: HostTravel,
  start: StartState,
): number {
  const { host, kind } = device;
  const built_ms = travel.queued_ms + model.buildMs(host.worker_id, kind, start);
  return Math.max(arrivalMs(device, travel), built_ms) + model.initMs(host.worker_id, kind, start);
}

/** What a start of the checkpoint would begin with on the host, as far as its worker has said. */
export function startState(
  host: HostNode,
  checkpoint: CheckpointDigest,
  { tier }: Pick<HostTravel, "tier">,
  isParked: boolean,
): StartState {
  const how = isParked ? "resume" : howOf(host, checkpoint);
  return { how, is_in_memory: tier === "host", is_beside: host.working > 0 };
}

function howOf({ standby }: HostNode, checkpoint: CheckpointDigest): StartHow {
  if (standby === null) return "cold";
  if (standby.built.includes(checkpoint)) return "built";
  return standby.warm > 0 ? "warm" : "cold";
}

/** Learned here, else as the worker says, else what such links usually do. */
function bytesPerMs(
  tier: Tier,
  name: string,
  link: LinkView | null,
  learned: ReadonlyMap<string, number> | null,
): number {
  const seen = learned?.get(name);
  if (seen !== undefined) return seen;
  const reported = link?.bandwidth_bytes_per_s ?? null;
  return reported === null ? nominal_bytes_per_ms[tier] : reported / 1000;
}
