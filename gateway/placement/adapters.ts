/** Adapters among workers: who cannot serve a request with one. Pure. */
import type { CheckpointDigest, WorkerId } from "../../schema/ids.ts";
import type { ClusterView } from "../scheduler/view.ts";

/** Whether no worker that takes work has an adapter's checkpoint although some do take work. */
export function isNowhere(view: ClusterView, checkpoint: CheckpointDigest): boolean {
  const without = workersWithout(view, checkpoint);
  const accepting = view.hosts.filter((host) => host.accepting);
  return accepting.length > 0 && accepting.every(({ worker_id }) => without.has(worker_id));
}

/** Workers without an adapter's checkpoint. Adapters are not fetched from elsewhere: none is a place for its requests. */
export function workersWithout(view: ClusterView, checkpoint: CheckpointDigest): ReadonlySet<WorkerId> {
  const holders = view.holdersOf(checkpoint).filter(({ bytes }) => Math.max(bytes.disk, bytes.host) > 0);
  const has = new Set(holders.map(({ host }) => host.worker_id));
  return new Set(view.hosts.map(({ worker_id }) => worker_id).filter((worker_id) => !has.has(worker_id)));
}
