/**
 * Clears devices in a simulated cluster. A move goes as the paper's: the destination loads the model, computes prompt and
 * tokens so far while the source goes on, again with what came meanwhile, until little is missing; then the source stops,
 * and the rest is computed at the destination.
 */
import type { InstanceRow } from "../../schema/db/tables.ts";
import type { InstanceId } from "../../schema/ids.ts";
import type { SimulatedSystem } from "../../schema/simulation.ts";
import type { Clearing } from "../dispatch/clearing.ts";
import type { Fleet } from "../placement/fleet.ts";
import type { InstanceUse } from "../placement/instance-uses.ts";
import type { Starts } from "../placement/starts.ts";
import type { Stops } from "../placement/stops.ts";
import type { StateStore } from "../ports.ts";
import type { Move } from "../scheduler/decision.ts";
import { type Lives, prefillMs, type Running } from "./lives.ts";
import type { Outcomes } from "./outcomes.ts";
import type { VirtualClock } from "./virtual-clock.ts";

export interface MovesDeps {
  readonly clock: VirtualClock;
  readonly fleet: Fleet;
  readonly starts: Starts;
  readonly stops: Stops;
  readonly store: Pick<StateStore, "moveInstance">;
  readonly lives: () => Lives;
  readonly outcomes: Outcomes;
  readonly system: SimulatedSystem;
}

export class Moves implements Clearing {
  readonly #deps: MovesDeps;
  /** Generations moved, and plans that came to nothing. */
  moved = 0;
  dropped = 0;

  constructor(deps: MovesDeps) {
    this.#deps = deps;
  }

  async moveAway(moves: readonly Move[]): Promise<boolean> {
    const outcomes = await Promise.all(moves.map((move) => this.#move(move)));
    return outcomes.every((isGone) => isGone);
  }

  async preempt(victims: readonly InstanceId[]): Promise<boolean> {
    const { fleet, lives, stops } = this.#deps;
    const stopping = victims.map((instance_id) => {
      const row = fleet.instance(instance_id);
      if (row === null) return "gone" as const;
      // No request comes in between: both happen before anything else runs.
      lives().interrupt(instance_id);
      return stops.stop(row, "preempted");
    });
    const outcomes = await Promise.all(stopping);
    return outcomes.every((outcome) => outcome === "gone");
  }

  async #move(move: Move): Promise<boolean> {
    const { fleet, lives, stops } = this.#deps;
    const source = fleet.instance(move.instance_id);
    if (source?.state !== "ready" || !(await this.#mark(source, "migrating"))) return false;
    const marked = fleet.instance(move.instance_id) ?? source;
    const uses = await this.#openDestination(move, lives().at(source.instance_id).size);
    if (uses !== null) {
      for (const running of [...lives().at(source.instance_id)]) {
        const use = uses.shift();
        if (use !== undefined) await this.#carry(running, use);
      }
      for (const { use } of uses) use.release();
    }
    if (fleet.inFlight(source.instance_id) > 0) {
      this.dropped += 1;
      await this.#mark(marked, "ready");
      return false;
    }
    return (await stops.stop(marked, "moved away")) === "gone";
  }

  async #mark(row: InstanceRow, state: "migrating" | "ready"): Promise<boolean> {
    const { fleet, store } = this.#deps;
    const from = [row.state];
    fleet.put({ ...row, state });
    if (await store.moveInstance({ instance_id: row.instance_id, from, to: state, reason: "moves" }))
      return true;
    await fleet.refresh();
    return false;
  }

  /** Slots for so many generations at the destination, once its model runs; null when it cannot be had. */
  async #openDestination(
    move: Move,
    slots: number,
  ): Promise<{ instance_id: InstanceId; use: InstanceUse }[] | null> {
    const { fleet } = this.#deps;
    const instance_id = move.into ?? (await this.#begin(move));
    const row = instance_id === null ? null : fleet.instance(instance_id);
    if (
      row === null ||
      fleet.inFlight(row.instance_id) + slots > row.slots + (row.state === "loading" ? 1 : 0)
    ) {
      return null;
    }
    const uses = Array.from({ length: slots }, () => ({
      instance_id: row.instance_id,
      use: fleet.acquire(row.instance_id, () => {}),
    }));
    if (row.state === "ready") return uses;
    if ((await this.#loads.get(row.instance_id)) === true) return uses;
    for (const { use } of uses) use.release();
    return null;
  }

  readonly #loads = new Map<InstanceId, Promise<boolean>>();

  /** Starts the model at the destination. */
  async #begin({ instance_id, worker_id, device_id, estimate_ms }: Move): Promise<InstanceId | null> {
    const { fleet, starts } = this.#deps;
    const source = fleet.instance(instance_id);
    const model = source === null ? null : fleet.model(source.model_id);
    if (model === null) return null;
    // What this start takes is not compared with its estimate: that one is of the whole move.
    const target = {
      ...{ worker_id, device_id, estimate_ms, tier: "peer" as const, queued_ms: 0, arrival_ms: 0 },
      ...{ is_beside: true, parked: null },
    };
    const outcome = await starts.start(model, target, []);
    if (!outcome.created) return null;
    const { instance, load } = outcome;
    const isThere = instance.worker_id === worker_id && instance.device_id === device_id;
    if (!isThere) return null;
    this.#loads.set(
      instance.instance_id,
      load.outcome.then(({ ok }) => {
        this.#loads.delete(instance.instance_id);
        return ok;
      }),
    );
    return instance.instance_id;
  }

  /** One generation, round by round; one that ends meanwhile needs its place no more. */
  async #carry(
    running: Running,
    to: { readonly instance_id: InstanceId; readonly use: InstanceUse },
  ): Promise<void> {
    const { clock, lives, outcomes, system } = this.#deps;
    const all = lives();
    const source = running.instance_id;
    const hasLeft = () => running.instance_id !== source || !all.at(source).has(running);
    let known = 0;
    for (let round = 1; round <= system.migration_rounds; round++) {
      if (hasLeft()) break;
      const total = running.input_tokens + all.tokensOf(running);
      if (round > 1 && total - known <= system.migration_gap_tokens) break;
      await clock.sleep(prefillMs(running.model, total - known));
      known = total;
    }
    if (hasLeft()) return to.use.release();
    all.leave(running);
    running.instance_id = to.instance_id;
    running.use = to.use;
    running.prefill_ms = prefillMs(running.model, running.input_tokens + running.had_tokens - known);
    outcomes.add("pause_ms", running.index, running.prefill_ms);
    outcomes.bump("migrations", running.index);
    this.moved += 1;
    all.begin(running);
  }
}
