/** What workers last said about their instances and their reserve, as far as they say it to this gateway. */
import type { EngineActivity } from "../../schema/cluster/activity.ts";
import type { HeartbeatRequest, StandbyReport } from "../../schema/cluster/membership.ts";
import type { InstanceId, WorkerId } from "../../schema/ids.ts";

export interface ReportedLoad {
  /** Generations in slots. */
  readonly active: number;
  /** Generations in the engine's queue. */
  readonly queued: number;
  /** What the engine was at; null before it has said. */
  readonly activity: EngineActivity | null;
}

export class WorkerReports {
  readonly #byWorker = new Map<WorkerId, ReadonlyMap<InstanceId, ReportedLoad>>();

  readonly #standbys = new Map<WorkerId, StandbyReport>();

  /** Replaces what the worker said before. */
  note(report: Pick<HeartbeatRequest, "worker_id" | "instances" | "standby">): void {
    if (report.standby === undefined) this.#standbys.delete(report.worker_id);
    else this.#standbys.set(report.worker_id, report.standby);
    const loads = report.instances.map(
      ({ instance_id, active, queued, activity = null }) =>
        [instance_id, { active, queued, activity }] as const,
    );
    this.#byWorker.set(report.worker_id, new Map(loads));
  }

  /** null when the worker reports to another gateway or has not reported the instance yet. */
  of(worker_id: WorkerId, instance_id: InstanceId): ReportedLoad | null {
    return this.#byWorker.get(worker_id)?.get(instance_id) ?? null;
  }

  /** Engine processes in its reserve; null when it reports to another gateway or has none. */
  standbyOf(worker_id: WorkerId): StandbyReport | null {
    return this.#standbys.get(worker_id) ?? null;
  }

  /** Forgets workers that are not known any more. */
  keepOnly(isKnown: (worker_id: WorkerId) => boolean): void {
    for (const worker_id of this.#byWorker.keys()) {
      if (isKnown(worker_id)) continue;
      this.#byWorker.delete(worker_id);
      this.#standbys.delete(worker_id);
    }
  }
}
