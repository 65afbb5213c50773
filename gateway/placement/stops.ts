/** Stops idle instances: draining, unloaded by the worker if it agrees that they are idle, gone. Never cuts work. */
import type { InstanceRow } from "../../schema/db/tables.ts";
import { SllmError } from "../../schema/error.ts";
import type { InstanceId } from "../../schema/ids.ts";
import type { Clock, Log, StateStore, WorkerClient } from "../ports.ts";
import type { Fleet } from "./fleet.ts";
import { writeWhenPossible } from "./state-writes.ts";

/** `busy`: it serves again. `pending`: it stays draining, to be tried again. `changed`: somebody was faster. */
export type StopOutcome = "gone" | "busy" | "pending" | "changed";

export interface StopsDeps {
  readonly fleet: Fleet;
  readonly store: Pick<StateStore, "moveInstance">;
  readonly workers: Pick<WorkerClient, "unload">;
  readonly clock: Clock;
  readonly log: Log;
}

export class Stops {
  readonly #deps: StopsDeps;
  readonly #running = new Map<InstanceId, Promise<StopOutcome>>();
  readonly #stopping = new AbortController();

  constructor(deps: StopsDeps) {
    this.#deps = deps;
  }

  /** Stops a ready or draining instance; concurrent calls for one instance share the attempt. */
  stop(row: InstanceRow, reason: string): Promise<StopOutcome> {
    const running = this.#running.get(row.instance_id);
    if (running !== undefined) return running;
    const attempt = this.#attempt(row, reason).finally(() => this.#running.delete(row.instance_id));
    this.#running.set(row.instance_id, attempt);
    return attempt;
  }

  isStopping(instance_id: InstanceId): boolean {
    return this.#running.has(instance_id);
  }

  /** Resolves when no stop is under way; writes no longer wait for a database that is away. */
  async close(): Promise<void> {
    this.#stopping.abort();
    await Promise.allSettled([...this.#running.values()]);
  }

  async #attempt(row: InstanceRow, reason: string): Promise<StopOutcome> {
    const { fleet, workers, log } = this.#deps;
    const { instance_id, model_id } = row;
    if (row.state === "ready" && !(await this.#drain(row, reason))) return "changed";
    const worker = fleet.address(row.worker_id);
    if (worker === null) return "pending";
    try {
      await workers.unload(worker, instance_id, { if_idle: true });
    } catch (error) {
      if (error instanceof SllmError && error.code === "instance_busy") return await this.#serveAgain(row);
      log.warn("unload_failed", {
        instance_id,
        model_id,
        reason: error instanceof Error ? error.message : null,
      });
      return "pending";
    }
    await this.#move(row, { from: ["draining"], to: "gone", reason });
    log.info("instance_gone", { instance_id, model_id, reason });
    return "gone";
  }

  /** Takes it out of service here before anybody waits for the store, so that no request slips in meanwhile. */
  async #drain(row: InstanceRow, reason: string): Promise<boolean> {
    const { fleet, store } = this.#deps;
    const { instance_id } = row;
    if (fleet.inFlight(instance_id) > 0) return false;
    fleet.put({ ...row, state: "draining" });
    try {
      if (await store.moveInstance({ instance_id, from: ["ready"], to: "draining", reason })) return true;
    } catch (error) {
      fleet.put(row);
      throw error;
    }
    await fleet.refresh();
    return false;
  }

  async #serveAgain(row: InstanceRow): Promise<StopOutcome> {
    const { fleet, clock } = this.#deps;
    await this.#move(row, { from: ["draining"], to: "ready", reason: "in use" });
    fleet.markUsed(row.instance_id, clock.wallMs());
    return "busy";
  }

  async #move(
    row: InstanceRow,
    move: { from: readonly ["draining"]; to: "gone" | "ready"; reason: string },
  ): Promise<void> {
    const { fleet, store, clock } = this.#deps;
    const write = () => store.moveInstance({ instance_id: row.instance_id, ...move });
    const moved = await writeWhenPossible(clock, this.#stopping.signal, write);
    if (moved) fleet.put({ ...row, state: move.to });
    else await fleet.refresh();
  }
}
