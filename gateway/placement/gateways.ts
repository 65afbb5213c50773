/**
 * Which gateways live: each renews a lease of its own, and who sees no new beat of one for a while, by its own clock,
 * takes it for gone. Wrong in doubt is harmless: who was taken for gone loses what it owned, and reads it from then on.
 */
import type { LeaseRow } from "../../schema/db/tables.ts";
import type { GatewayId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { Clock, Log, StateStore } from "../ports.ts";

const prefix = "gateway:";

export interface GatewaysDeps {
  readonly store: Pick<StateStore, "holdLease" | "releaseLease">;
  readonly clock: Pick<Clock, "monotonicMs">;
  readonly gateway_id: GatewayId;
  readonly log: Log;
}

interface Seen {
  readonly beat: number;
  readonly holder: string;
  readonly since_ms: number;
}

export class Gateways {
  readonly #deps: GatewaysDeps;
  #seen = new Map<GatewayId, Seen>();
  /** When a gateway without a lease was first asked for. */
  readonly #unknown = new Map<GatewayId, number>();
  #own: LeaseRow | null = null;
  #renewed_ms = Number.NEGATIVE_INFINITY;

  constructor(deps: GatewaysDeps) {
    this.#deps = deps;
  }

  /** Takes in the leases as they were just read, and renews the own one when it is time. Throws what the store throws. */
  async keep(leases: readonly LeaseRow[]): Promise<void> {
    const { store, clock, gateway_id } = this.#deps;
    const now_ms = clock.monotonicMs();
    const seen = new Map<GatewayId, Seen>();
    for (const { name, holder, beat } of leases) {
      if (!name.startsWith(prefix)) continue;
      const gateway = name.slice(prefix.length);
      const before = this.#seen.get(gateway);
      seen.set(gateway, before?.beat === beat ? before : { beat, holder, since_ms: now_ms });
    }
    this.#seen = seen;
    if (now_ms - this.#renewed_ms < limits.leader_renewal_ms) return;
    const name = `${prefix}${gateway_id}`;
    const known = this.#own ?? leases.find((lease) => lease.name === name) ?? null;
    this.#own = await store.holdLease(name, gateway_id, known);
    this.#renewed_ms = now_ms;
  }

  /** The database did not answer: that no beat was seen says nothing. */
  reset(): void {
    this.#seen.clear();
    this.#unknown.clear();
    this.#renewed_ms = Number.NEGATIVE_INFINITY;
  }

  /** This gateway always does; one without a lease may be about to take it. */
  isAlive(gateway: GatewayId): boolean {
    const { clock, gateway_id } = this.#deps;
    if (gateway === gateway_id) return true;
    const now_ms = clock.monotonicMs();
    const seen = this.#seen.get(gateway);
    if (seen !== undefined) return seen.holder !== "" && now_ms - seen.since_ms < limits.leader_lease_ms;
    const since_ms = this.#unknown.get(gateway) ?? now_ms;
    this.#unknown.set(gateway, since_ms);
    return now_ms - since_ms < limits.leader_lease_ms;
  }

  /** Those that are seen to live, this one included. */
  alive(): GatewayId[] {
    const { gateway_id } = this.#deps;
    return [gateway_id, ...[...this.#seen.keys()].filter((id) => id !== gateway_id && this.isAlive(id))];
  }

  /** What it owned is for others at once. Never rejects. */
  async release(): Promise<void> {
    const own = this.#own;
    this.#own = null;
    if (own === null) return;
    try {
      await this.#deps.store.releaseLease(own);
    } catch (error) {
      this.#deps.log.warn("gateway_not_released", { message: error instanceof Error ? error.message : null });
    }
  }
}
