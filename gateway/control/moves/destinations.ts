/** Where streams of an instance can go: a running instance of the same checkpoint elsewhere, or a new one. */
import type { InstanceRow } from "../../../schema/db/tables.ts";
import { SllmError } from "../../../schema/error.ts";
import type { CheckpointDigest, ModelId, WorkerId } from "../../../schema/ids.ts";
import type { SchedulingPolicy } from "../../../schema/vocab.ts";
import { workersWithout } from "../../placement/adapters.ts";
import type { Fleet, FleetModel } from "../../placement/fleet.ts";
import type { Loads } from "../../placement/loads.ts";
import { placementRequest, seedFor } from "../../placement/placement-request.ts";
import type { Starts } from "../../placement/starts.ts";
import type { Clock, Random } from "../../ports.ts";
import { decide } from "../../scheduler/decide.ts";
import type { Move, StartTarget } from "../../scheduler/decision.ts";
import { noRivals } from "../../scheduler/view.ts";

export interface FoundDestination {
  readonly instance: InstanceRow;
  /** When it takes streams in; rejects when it never does. */
  readonly ready: Promise<InstanceRow>;
}

export interface DestinationFinderDeps {
  readonly fleet: Fleet;
  readonly starts: Pick<Starts, "start">;
  readonly loads: Pick<Loads, "follow">;
  readonly policy: SchedulingPolicy;
  readonly claims: { readonly all: ReadonlyMap<string, ModelId> };
  readonly random: Random;
  readonly clock: Pick<Clock, "wallMs">;
}

export class DestinationFinder {
  readonly #deps: DestinationFinderDeps;

  constructor(deps: DestinationFinderDeps) {
    this.#deps = deps;
  }

  /**
   * On the worker that is named, or wherever it would be served first; never where it is. Starts an instance where none
   * has a free slot. A stream that an adapter answers goes where that is. Errors: `not_found` for an unknown worker,
   * `checkpoint_unavailable` for one without the adapter, `insufficient_memory` or what the scheduler refuses.
   */
  async find(
    source: InstanceRow,
    to: WorkerId | null,
    adapter: CheckpointDigest | undefined,
  ): Promise<FoundDestination> {
    const { fleet, starts } = this.#deps;
    if (to !== null && fleet.worker(to) === null) {
      throw new SllmError("not_found", `The worker '${to}' is not known.`);
    }
    if (to !== null && !this.has(to, adapter)) {
      throw new SllmError("checkpoint_unavailable", `The worker '${to}' does not have the stream's adapter.`);
    }
    const model = this.#model(source);
    for (let attempt = 0; attempt < placementAttempts; attempt++) {
      const { action, reason, losers } = this.#decide(source, model, to, adapter);
      if (action.kind === "use" || action.kind === "wait" || action.kind === "queue") {
        const row = fleet.instance(action.instance_id);
        if (row !== null) return this.#at(row);
      } else if (action.kind === "start" || action.kind === "reclaim") {
        const victims = action.kind === "reclaim" ? action.victims : [];
        const started = await starts.start(model, action.target, victims);
        if (started.created) return this.#at(started.instance);
      } else {
        const code =
          action.kind === "hold" ? "insufficient_memory" : "code" in action ? action.code : "overloaded";
        const why = losers.find(({ worker_id }) => worker_id === to)?.why;
        const message =
          why === undefined
            ? `No other place can take the stream in: ${reason}`
            : `The worker '${to}' cannot take the stream in (${why}).`;
        throw new SllmError(code, message);
      }
      await fleet.refresh();
    }
    throw new SllmError("overloaded", "The places that could take the stream in are taken by others.");
  }

  /** Whether a worker has the adapter, if there is one. */
  has(worker_id: WorkerId, adapter: CheckpointDigest | undefined): boolean {
    return adapter === undefined || !workersWithout(this.#deps.fleet.view(), adapter).has(worker_id);
  }

  /** As a plan of the scheduler says: into a running instance, or a new one on that device. */
  async take(source: InstanceRow, move: Move): Promise<FoundDestination> {
    const { fleet, starts } = this.#deps;
    const into = move.into === null ? null : fleet.instance(move.into);
    if (into !== null) return this.#at(into);
    const { worker_id, device_id, estimate_ms } = move;
    const target: StartTarget = {
      ...{ worker_id, device_id, estimate_ms, tier: "disk", queued_ms: 0, arrival_ms: 0 },
      ...{ is_beside: true, parked: null },
    };
    const started = await starts.start(this.#model(source), target, []);
    if (started.created) return this.#at(started.instance);
    throw new SllmError("overloaded", "The room for the moved instance is taken.");
  }

  #at(row: InstanceRow): FoundDestination {
    if (row.state === "ready") return { instance: row, ready: Promise.resolve(row) };
    const ready = this.#deps.loads.follow(row).outcome.then((outcome) => {
      if (!outcome.ok) throw outcome.error;
      const now = this.#deps.fleet.instance(row.instance_id);
      if (now?.state === "ready") return now;
      throw new SllmError("state_conflict", "The instance at the destination has gone.");
    });
    ready.catch(heardLater);
    return { instance: row, ready };
  }

  #model({ model_id }: InstanceRow): FleetModel {
    const model = this.#deps.fleet.model(model_id);
    if (model !== null) return model;
    throw new SllmError("model_not_found", `The model '${model_id}' is not deployed any more.`);
  }

  #decide(
    source: InstanceRow,
    model: FleetModel,
    to: WorkerId | null,
    adapter: CheckpointDigest | undefined,
  ) {
    const { fleet, policy, random, clock, claims } = this.#deps;
    const others = fleet.snapshot.workers.map((w) => w.worker_id).filter((id) => to !== null && id !== to);
    const elsewhere = fleet
      .instancesOf(source.model_id)
      .filter((i) => i.checkpoint !== source.checkpoint || i.instance_id === source.instance_id);
    const request = placementRequest(model, {
      avoid: {
        workers: new Set([...others, source.worker_id]),
        instances: new Set(elsewhere.map((i) => i.instance_id)),
      },
      ...(adapter === undefined ? {} : { unfit: workersWithout(fleet.view(), adapter) }),
      ...{ policy, seed: seedFor(policy, random), waiting_ahead: 0, may_migrate: false, rivals: noRivals },
      claims: claims.all,
      now_ms: clock.wallMs(),
    });
    // It takes the place of one that it leaves.
    return decide(fleet.view(), { ...request, max_instances: request.max_instances + 1 });
  }
}

/** Others may take a place between the decision and its booking. */
const placementAttempts = 3;

function heardLater(): void {}
