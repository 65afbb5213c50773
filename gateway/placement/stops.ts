/**
 * Stops and parks idle instances: draining, unloaded or parked by the worker if it agrees that they are idle, then gone
 * or parked. Never cuts work.
 */
import type { InstanceRow } from "../../schema/db/tables.ts";
import { SllmError } from "../../schema/error.ts";
import type { InstanceId } from "../../schema/ids.ts";
import { parkedMemoryBytes } from "../../schema/memory.ts";
import type { Clock, InstanceMove, Log, StateStore, WorkerClient } from "../ports.ts";
import type { Fleet } from "./fleet.ts";
import { writeWhenPossible } from "./state-writes.ts";

/** `busy`: it serves again. `pending`: it stays draining, to be stopped later. `changed`: somebody was faster. */
export type StopOutcome = "gone" | "parked" | "busy" | "pending" | "changed";

export interface StopsDeps {
  readonly fleet: Fleet;
  readonly store: Pick<StateStore, "moveInstance">;
  readonly workers: Pick<WorkerClient, "unload" | "park">;
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

  /** Stops a ready, parked or draining instance; concurrent calls for one instance share the attempt. */
  stop(row: InstanceRow, reason: string): Promise<StopOutcome> {
    return this.#once(row, reason, false);
  }

  /** Parks a ready instance: it books little then, and a start brings it back. */
  park(row: InstanceRow, reason: string): Promise<StopOutcome> {
    return this.#once(row, reason, true);
  }

  #once(row: InstanceRow, reason: string, toPark: boolean): Promise<StopOutcome> {
    const running = this.#running.get(row.instance_id);
    if (running !== undefined) return running;
    const attempt = this.#attempt(row, reason, toPark).finally(() => this.#running.delete(row.instance_id));
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

  async #attempt(row: InstanceRow, reason: string, toPark: boolean): Promise<StopOutcome> {
    const { fleet, workers, log } = this.#deps;
    const { instance_id, model_id } = row;
    if (row.state !== "draining" && !(await this.#drain(row, reason))) return "changed";
    const worker = fleet.addressOf(row);
    if (worker === null) return "pending";
    try {
      if (toPark) await workers.park(worker, instance_id);
      else await workers.unload(worker, instance_id, { if_idle: true });
    } catch (error) {
      const inUse = error instanceof SllmError && error.code === "instance_busy" && row.state !== "parked";
      if (inUse) return await this.#serveAgain(row);
      log.warn(toPark ? "park_failed" : "unload_failed", {
        instance_id,
        model_id,
        reason: error instanceof Error ? error.message : null,
      });
      return "pending";
    }
    const to = toPark ? "parked" : "gone";
    await this.#move(row, { to, reason, ...(toPark ? { memory_bytes: parkedMemoryBytes() } : {}) });
    log.info(`instance_${to}`, { instance_id, model_id, reason });
    return to;
  }

  /** Takes it out of service here before anybody waits for the store, so that no request slips in meanwhile. */
  async #drain(row: InstanceRow, reason: string): Promise<boolean> {
    const { fleet, store } = this.#deps;
    const { instance_id } = row;
    if (fleet.inFlight(instance_id) > 0) return false;
    fleet.put({ ...row, state: "draining" });
    try {
      if (await store.moveInstance({ instance_id, from: [row.state], to: "draining", reason })) return true;
    } catch (error) {
      fleet.put(row);
      throw error;
    }
    await fleet.refresh();
    return false;
  }

  async #serveAgain(row: InstanceRow): Promise<StopOutcome> {
    const { fleet } = this.#deps;
    await this.#move(row, { to: "ready", reason: "in use" });
    fleet.markUsed(row.instance_id);
    return "busy";
  }

  async #move(row: InstanceRow, move: Pick<InstanceMove, "to" | "reason" | "memory_bytes">): Promise<void> {
    const { fleet, store, clock } = this.#deps;
    const write = () => store.moveInstance({ instance_id: row.instance_id, from: ["draining"], ...move });
    const moved = await writeWhenPossible(clock, this.#stopping.signal, write);
    if (moved) fleet.put({ ...row, state: move.to, memory_bytes: move.memory_bytes ?? row.memory_bytes });
    else await fleet.refresh();
  }
}
