/** Everything that moves streams, put together, and what of it a gateway does once a turn while it leads. */
import { toSllmError } from "../../../schema/error.ts";
import type { ModelId } from "../../../schema/ids.ts";
import { limits } from "../../../schema/limits.ts";
import type { SchedulingPolicy } from "../../../schema/vocab.ts";
import { type LearnedEstimates, networkDetail } from "../../placement/estimates/learned-estimates.ts";
import { observeKvTransfer, observeMove } from "../../placement/estimates/observe.ts";
import type { Loads } from "../../placement/loads.ts";
import type { Starts } from "../../placement/starts.ts";
import { nominal_bytes_per_ms } from "../../scheduler/estimates.ts";
import { chooseMethod } from "./choose-method.ts";
import { DestinationFinder } from "./destinations.ts";
import { InstanceMoves, type InstanceMovesDeps } from "./instance-moves.ts";
import { Migrations, type MigrationsDeps } from "./migrations.ts";

export interface MovesDeps
  extends Omit<MigrationsDeps, "destinations" | "onComputed" | "onSentKv" | "prefersKv">,
    Omit<InstanceMovesDeps, "destinations" | "migrations" | "store"> {
  readonly store: MigrationsDeps["store"] & InstanceMovesDeps["store"];
  readonly starts: Pick<Starts, "start">;
  readonly loads: Pick<Loads, "follow">;
  readonly estimates: Pick<LearnedEstimates, "observe" | "links" | "model">;
  readonly policy: SchedulingPolicy;
  readonly claims: { readonly all: ReadonlyMap<string, ModelId> };
}

export class Moves {
  readonly migrations: Migrations;
  readonly instances: InstanceMoves;
  readonly #clock: MovesDeps["clock"];
  readonly #log: MovesDeps["log"];
  #next_ms = Number.NEGATIVE_INFINITY;

  constructor(deps: MovesDeps) {
    const { fleet, estimates } = deps;
    const destinations = new DestinationFinder(deps);
    this.migrations = new Migrations({
      ...deps,
      destinations,
      onComputed: (to, tokens, ms) => {
        const kind = fleet.deviceKind(to);
        if (kind !== null) observeMove(estimates, to.model_id, kind, tokens, ms);
      },
      onSentKv: ({ worker_id }, bytes, ms) => observeKvTransfer(estimates, worker_id, bytes, ms),
      prefersKv: (from, to, tokens) => {
        const kind = fleet.deviceKind(to);
        const model = fleet.model(from.model_id);
        if (kind === null || model === null) return false;
        const costs = {
          tokens,
          kv_bytes_per_token: model.facts.model.kv_bytes_per_token,
          network_bytes_per_ms:
            estimates.links(from.worker_id)?.get(networkDetail) ?? nominal_bytes_per_ms.peer,
          recompute_ms: estimates.model(from.model_id).migrationMs(kind, tokens, 1),
        };
        return chooseMethod(costs) === "kv_transfer";
      },
    });
    this.instances = new InstanceMoves({ ...deps, destinations, migrations: this.migrations });
    this.#clock = deps.clock;
    this.#log = deps.log;
  }

  /** Begins what is due: for workers that drain at once, for moves without a gateway now and then. */
  lead(): void {
    this.instances.turn();
    const now_ms = this.#clock.monotonicMs();
    if (now_ms < this.#next_ms) return;
    this.#next_ms = now_ms + limits.move_note_ms;
    this.migrations.recover().catch((error: unknown) => this.#log.warn("moves_not_read", reasonOf(error)));
  }

  async close(): Promise<void> {
    await Promise.all([this.instances.close(), this.migrations.close()]);
  }
}

function reasonOf(error: unknown): { readonly reason: string } {
  return { reason: toSllmError(error).message };
}
