/** Makes the scheduler's facts out of rows. Pure. */
import type { InstanceRow } from "../../schema/db/tables.ts";
import type { ClusterSnapshot } from "../ports.ts";
import type { ClusterFacts, RemoteSources } from "../scheduler/view.ts";

/** Workers cannot fetch from each other or from outside yet. */
export const noRemote: RemoteSources = { peer: false, origin: false };

/** `instances` are the live ones as this gateway knows them; booked memory follows them, not the older read. */
export function toClusterFacts(
  snapshot: ClusterSnapshot,
  instances: readonly InstanceRow[],
  usage: ClusterFacts["usage"],
  remote: RemoteSources = noRemote,
): ClusterFacts {
  const bookedNow = bookedByDevice(instances);
  const bookedThen = bookedByDevice(snapshot.instances);
  return {
    workers: snapshot.workers.map((w) => ({ worker_id: w.worker_id, accepting: w.state === "ready" })),
    devices: snapshot.devices.map(({ worker_id, device_id, kind, memory_bytes, reserved_bytes, repacks }) => {
      const key = deviceKey({ worker_id, device_id });
      const change = (bookedNow.get(key) ?? 0) - (bookedThen.get(key) ?? 0);
      return { worker_id, device_id, kind, memory_bytes, reserved_bytes: reserved_bytes + change, repacks };
    }),
    sources: snapshot.placements.filter((p) => p.state !== "evicting"),
    links: snapshot.workers.flatMap(({ worker_id, links }) => links.map((link) => ({ worker_id, ...link }))),
    problems: snapshot.workers
      .filter((w) => w.state === "ready")
      .flatMap(({ worker_id, problems }) =>
        problems.map(({ checkpoint, error }) => ({ worker_id, checkpoint, ...error })),
      ),
    instances,
    usage,
    remote,
  };
}

function bookedByDevice(instances: readonly InstanceRow[]): ReadonlyMap<string, number> {
  const booked = new Map<string, number>();
  for (const instance of instances) {
    const key = deviceKey(instance);
    booked.set(key, (booked.get(key) ?? 0) + instance.memory_bytes);
  }
  return booked;
}

function deviceKey({ worker_id, device_id }: { worker_id: string; device_id: string }): string {
  return `${worker_id}/${device_id}`;
}
