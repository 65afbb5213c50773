/** Records that an instance has turned out to be dead, so that its memory is free and nobody is sent there. */
import type { InstanceRow } from "../../schema/db/tables.ts";
import type { SllmError } from "../../schema/error.ts";
import type { Log, StateStore } from "../ports.ts";
import type { Fleet } from "./fleet.ts";

export interface FailInstanceDeps {
  readonly fleet: Fleet;
  readonly store: Pick<StateStore, "moveInstance">;
  readonly log: Log;
}

/** Never rejects: when the store does not answer, the instance is avoided here until its worker reports it. */
export async function failInstance(
  deps: FailInstanceDeps,
  row: InstanceRow,
  error: SllmError,
): Promise<void> {
  const { instance_id, model_id } = row;
  const { code, message } = error;
  deps.log.warn("instance_failed", { instance_id, model_id, worker_id: row.worker_id, code });
  deps.fleet.put({ ...row, state: "failed" });
  try {
    await deps.store.moveInstance({
      instance_id,
      from: ["ready", "draining"],
      to: "failed",
      reason: code,
      error: { code, message },
    });
  } catch (thrown) {
    deps.log.error("instance_failure_not_recorded", { instance_id }, thrown);
  }
}
