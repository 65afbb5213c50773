/** Makes the scheduler's view out of rows. Pure. */
import type { InstanceRow } from "../../schema/db/tables.ts";
import type { ClusterSnapshot } from "../ports.ts";
import type { ClusterView } from "../scheduler/view.ts";

/** What does not change between two reads of the store; counts and last uses are joined to it per decision. */
export type StaticView = Omit<ClusterView, "in_flight" | "last_used_ms">;

/** `instances` are the live ones as this gateway knows them; booked memory follows them, not the older read. */
export function toStaticView(snapshot: ClusterSnapshot, instances: Iterable<InstanceRow>): StaticView {
  const rows = [...instances];
  const booked = (worker_id: string, device_id: string, among: readonly InstanceRow[]) =>
    among
      .filter((i) => i.worker_id === worker_id && i.device_id === device_id)
      .reduce((sum, i) => sum + i.memory_bytes, 0);
  return {
    workers: snapshot.workers.map((w) => ({ worker_id: w.worker_id, accepting: w.state === "ready" })),
    devices: snapshot.devices.map((d) => ({
      worker_id: d.worker_id,
      device_id: d.device_id,
      kind: d.kind,
      memory_bytes: d.memory_bytes,
      reserved_bytes:
        d.reserved_bytes +
        booked(d.worker_id, d.device_id, rows) -
        booked(d.worker_id, d.device_id, snapshot.instances),
    })),
    sources: snapshot.placements
      .filter((p) => p.state !== "evicting")
      .map(({ worker_id, checkpoint, tier, bytes_present }) => ({
        worker_id,
        checkpoint,
        tier,
        bytes_present,
      })),
    links: snapshot.workers.flatMap(({ worker_id, links }) => links.map((link) => ({ worker_id, ...link }))),
    problems: snapshot.workers
      .filter((w) => w.state === "ready")
      .flatMap(({ worker_id, problems }) =>
        problems.map(({ checkpoint, error }) => ({ worker_id, checkpoint, ...error })),
      ),
    instances: rows,
  };
}
