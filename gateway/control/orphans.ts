/**
 * Generations whose gateway is gone: those that run to their end without a reader go on here, the others wait for their
 * clients as long as they may, and are closed then. Only the leader does.
 */
import type { GenerationId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { Gateways } from "../placement/gateways.ts";
import type { Log, StateStore } from "../ports.ts";

export interface OrphansDeps {
  readonly store: Pick<StateStore, "unfinishedOfOthers" | "moveGenerations">;
  readonly gateways: Pick<Gateways, "alive" | "isAlive">;
  /** Goes on with a generation here. */
  readonly adopt: (generation_id: GenerationId) => Promise<void>;
  readonly log: Log;
}

export class Orphans {
  readonly #deps: OrphansDeps;
  /** Since when their gateways are known to be gone. */
  #since = new Map<GenerationId, number>();
  #next_ms = Number.NEGATIVE_INFINITY;

  constructor(deps: OrphansDeps) {
    this.#deps = deps;
  }

  /** One look if it is time for one. Throws what the store throws. */
  async turn(now_ms: number): Promise<void> {
    if (now_ms < this.#next_ms) return;
    this.#next_ms = now_ms + limits.leader_renewal_ms;
    const { store, gateways, adopt, log } = this.#deps;
    const rows = await store.unfinishedOfOthers(gateways.alive(), limits.retention_rows);
    const since = new Map<GenerationId, number>();
    const closed: { readonly generation_id: GenerationId; readonly epoch: number }[] = [];
    for (const { row, record } of rows) {
      const { generation_id, owner, epoch } = row;
      if (owner === null || gateways.isAlive(owner)) continue;
      const since_ms = this.#since.get(generation_id) ?? now_ms;
      since.set(generation_id, since_ms);
      // A worker keeps what it was not told otherwise for the grace time, and a client may come back until then.
      const kept_ms = record === null ? 2 * limits.orphan_grace_ms : record.resume_ms;
      if (kept_ms === null) await adopt(generation_id);
      else if (now_ms - since_ms >= kept_ms) closed.push({ generation_id, epoch });
    }
    this.#since = since;
    if (closed.length === 0) return;
    const error = {
      code: "generation_lost",
      message: "Its gateway ended, and nobody came back for it.",
    } as const;
    const move = { from: ["queued", "running"], to: "failed", reason: "gateway_lost", error } as const;
    await store.moveGenerations(closed.map((one) => ({ ...one, ...move })));
    log.warn("orphans_closed", { generations: closed.length });
  }
}
