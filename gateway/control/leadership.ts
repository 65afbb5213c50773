/**
 * One gateway of all leads: it does what need be done once only. Whoever leads renews a lease; whoever sees it unrenewed
 * for the time of a lease takes over. Times are measured by each gateway's own clock that never jumps, never compared.
 *
 * The leader counts its lease from before it asked for the renewal, the others from when they have seen it: so it stops
 * before anybody takes over. Should it be held up for longer (a suspended process), every change that it then makes is
 * guarded in the store like everybody's: it changes nothing that the next leader has changed.
 */
import type { LeaseRow } from "../../schema/db/tables.ts";
import { limits } from "../../schema/limits.ts";
import type { Clock, Log, StateStore } from "../ports.ts";

/** Name of the lease. */
export const leaderLease = "leader";

export interface LeadershipDeps {
  readonly store: Pick<StateStore, "holdLease" | "releaseLease">;
  /** Names this process; another one after a restart. */
  readonly gateway_id: string;
  readonly clock: Pick<Clock, "monotonicMs">;
  readonly log: Log;
}

interface Seen {
  readonly row: LeaseRow | null;
  readonly since_ms: number;
}

interface Held {
  readonly row: LeaseRow;
  /** When the renewal was asked for. */
  readonly asked_ms: number;
}

export class Leadership {
  readonly #deps: LeadershipDeps;
  #seen: Seen | null = null;
  #held: Held | null = null;

  constructor(deps: LeadershipDeps) {
    this.#deps = deps;
  }

  /** True while this gateway leads. Ask before each step that only the leader takes. */
  get isLeader(): boolean {
    return (
      this.#held !== null && this.#deps.clock.monotonicMs() - this.#held.asked_ms < limits.leader_lease_ms
    );
  }

  /** Takes the lease as it was just read; renews it, takes it over or waits. Throws what the store throws. */
  async keep(row: LeaseRow | null): Promise<void> {
    const now_ms = this.#deps.clock.monotonicMs();
    if (this.#seen === null || !isSame(this.#seen.row, row)) this.#seen = { row, since_ms: now_ms };
    const held = this.#held;
    if (held !== null && row !== null && row.epoch > held.row.epoch) {
      this.#deps.log.warn("leader_lost", { epoch: held.row.epoch, holder: row.holder });
      this.#held = null;
    }
    if (this.#held !== null) {
      if (now_ms - this.#held.asked_ms >= limits.leader_renewal_ms) await this.#hold(this.#held.row, now_ms);
      return;
    }
    // Ours without our knowing it: the answer to a renewal was lost.
    const isOurs = row?.holder === this.#deps.gateway_id;
    const isFree = row === null || row.holder === "" || isOurs;
    if (isFree || now_ms - this.#seen.since_ms >= limits.leader_lease_ms) await this.#hold(row, now_ms);
  }

  /** The database did not answer: that no renewal was seen says nothing. */
  reset(): void {
    this.#seen = null;
  }

  /** Lets another gateway lead at once. Never rejects: without it the others wait for a lease. */
  async release(): Promise<void> {
    const held = this.#held;
    this.#held = null;
    if (held === null) return;
    try {
      await this.#deps.store.releaseLease(held.row);
    } catch (error) {
      this.#deps.log.warn("leader_not_released", { message: error instanceof Error ? error.message : null });
    }
  }

  async #hold(seen: LeaseRow | null, asked_ms: number): Promise<void> {
    const { store, gateway_id, log } = this.#deps;
    const before = this.#held;
    const row = await store.holdLease(leaderLease, gateway_id, seen);
    this.#held = row === null ? null : { row, asked_ms };
    if (row !== null && row.epoch !== before?.row.epoch) log.info("leader", { gateway_id, epoch: row.epoch });
  }
}

function isSame(a: LeaseRow | null, b: LeaseRow | null): boolean {
  return a?.epoch === b?.epoch && a?.beat === b?.beat;
}
