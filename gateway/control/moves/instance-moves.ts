/** Moves instances away with all their streams: where the scheduler wants their room, or their worker drains. */
import type { InstanceRow } from "../../../schema/db/tables.ts";
import { toSllmError } from "../../../schema/error.ts";
import type { InstanceId } from "../../../schema/ids.ts";
import { limits } from "../../../schema/limits.ts";
import type { Clearing } from "../../dispatch/clearing.ts";
import type { Fleet } from "../../placement/fleet.ts";
import type { Stops } from "../../placement/stops.ts";
import type { Clock, Log, StateStore } from "../../ports.ts";
import type { Move } from "../../scheduler/decision.ts";
import type { DestinationFinder } from "./destinations.ts";
import type { FindDestination, Migrations } from "./migrations.ts";

export interface InstanceMovesDeps {
  readonly fleet: Fleet;
  readonly store: Pick<StateStore, "moveInstance">;
  readonly stops: Pick<Stops, "stop">;
  readonly destinations: DestinationFinder;
  readonly migrations: Pick<Migrations, "moveAll" | "count">;
  readonly clock: Clock;
  readonly log: Log;
}

export class InstanceMoves implements Clearing {
  readonly #deps: InstanceMovesDeps;
  readonly #stopping = new AbortController();
  /** Instances that leave, by this gateway. */
  readonly #leaving = new Map<InstanceId, Promise<boolean>>();
  /** Since when an instance that nobody here moves is seen to be moving. */
  readonly #since = new Map<InstanceId, number>();

  constructor(deps: InstanceMovesDeps) {
    this.#deps = deps;
  }

  async moveAway(moves: readonly Move[]): Promise<boolean> {
    const outcomes = await Promise.all(moves.map((move) => this.#moveAway(move)));
    return outcomes.every((isGone) => isGone);
  }

  /** Only a policy that no live gateway has asks for it. */
  preempt(): Promise<boolean> {
    throw new Error("a live gateway stops no work of others");
  }

  /** Begins what is to be done for workers that drain, and for instances whose mover is gone. The leader's turn. */
  turn(): void {
    const { fleet, clock } = this.#deps;
    const draining = new Set(
      fleet.snapshot.workers.filter((w) => w.state === "draining").map((w) => w.worker_id),
    );
    for (const instance of fleet.instances) {
      const { instance_id, worker_id, state } = instance;
      if (this.#leaving.has(instance_id)) continue;
      if (state === "ready" && draining.has(worker_id)) this.#drain(instance);
      if (state !== "migrating") this.#since.delete(instance_id);
      else if (this.#silentFor(instance_id, clock.monotonicMs()) >= limits.move_silence_ms) {
        this.#since.delete(instance_id);
        void this.#serveAgain(instance);
      }
    }
    for (const instance_id of this.#since.keys())
      if (fleet.instance(instance_id) === null) this.#since.delete(instance_id);
  }

  /** Resolves when nothing of it is under way. */
  async close(): Promise<void> {
    this.#stopping.abort();
    await Promise.allSettled([...this.#leaving.values()]);
  }

  #silentFor(instance_id: InstanceId, now_ms: number): number {
    const since_ms = this.#since.get(instance_id) ?? now_ms;
    this.#since.set(instance_id, since_ms);
    return now_ms - since_ms;
  }

  /** Its worker ends it; what matters is that its streams go on elsewhere. */
  #drain(instance: InstanceRow): void {
    const { destinations, migrations } = this.#deps;
    const find: FindDestination = ({ adapter }) => destinations.find(instance, null, adapter);
    this.#follow(instance, migrations.moveAll(instance, find, "its worker drains", this.#stopping.signal));
  }

  #moveAway(move: Move): Promise<boolean> {
    const source = this.#deps.fleet.instance(move.instance_id);
    // Gone meanwhile, which is what was wanted; or another request of this gateway has it moved already.
    if (source === null) return Promise.resolve(true);
    return this.#leaving.get(source.instance_id) ?? this.#follow(source, this.#leave(source, move));
  }

  async #leave(source: InstanceRow, move: Move): Promise<boolean> {
    const { fleet, store, destinations, migrations, stops, clock } = this.#deps;
    const { instance_id } = source;
    const reason = "makes room for another model";
    const destination = await destinations.take(source, move);
    await destination.ready;
    // From here on it takes nothing new.
    if (!(await store.moveInstance({ instance_id, from: ["ready"], to: "migrating", reason }))) {
      await fleet.refresh();
      return false;
    }
    const leaving: InstanceRow = { ...source, state: "migrating" };
    fleet.put(leaving);
    // Plans know no adapters: a stream whose adapter is not there goes where it is.
    const find: FindDestination = ({ adapter }) =>
      destinations.has(destination.instance.worker_id, adapter)
        ? Promise.resolve(destination)
        : destinations.find(leaving, null, adapter);
    if (!(await migrations.moveAll(leaving, find, reason, this.#stopping.signal))) {
      await this.#serveAgain(leaving);
      return false;
    }
    // Readers here let go of it as they go over to the destination.
    for (let i = 0; fleet.inFlight(instance_id) > 0 && i < looks; i++)
      await clock.sleep(limits.drain_poll_ms);
    return (await stops.stop(leaving, reason)) === "gone";
  }

  async #serveAgain(leaving: InstanceRow): Promise<void> {
    const { fleet, store } = this.#deps;
    const { instance_id } = leaving;
    const reason = "its streams could not all move";
    const move = { instance_id, from: ["migrating"], to: "ready", reason } as const;
    if (await store.moveInstance(move)) fleet.put({ ...leaving, state: "ready" });
    else await fleet.refresh();
  }

  #follow(instance: InstanceRow, run: Promise<boolean>): Promise<boolean> {
    const { log } = this.#deps;
    const { instance_id, model_id } = instance;
    const followed = run
      .catch((thrown: unknown) => {
        const { code, message } = toSllmError(thrown);
        log.warn("instance_not_moved", { instance_id, model_id, code, reason: message });
        return false;
      })
      .finally(() => this.#leaving.delete(instance_id));
    this.#leaving.set(instance_id, followed);
    return followed;
  }
}

/** Looks for readers that are still here: a second of them. */
const looks = 10;
