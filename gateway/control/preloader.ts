/**
 * Has workers read checkpoints into host memory before anybody asks: of models that are deployed so, and by forecast of
 * those that were lately asked for. Only memory and disks that nobody needs are used: workers refuse everything else.
 */
import type { CheckpointDigest, ModelId, WorkerId } from "../../schema/ids.ts";
import type { Fleet, FleetModel } from "../placement/fleet.ts";
import { bookedBytes } from "../placement/starts.ts";
import type { Clock, Log, WorkerClient } from "../ports.ts";
import {
  type Arrivals,
  choosePreloads,
  likelihoodOf,
  type Preload,
  type PreloadWish,
  withArrival,
} from "../scheduler/preload.ts";

export interface PreloaderDeps {
  readonly fleet: Fleet;
  readonly workers: Pick<WorkerClient, "preload">;
  readonly clock: Pick<Clock, "monotonicMs">;
  readonly log: Log;
  /** Whether what was lately asked for is read ahead, too. */
  readonly forecast: boolean;
  readonly isLeader: () => boolean;
}

/** Pause after a worker was asked for a checkpoint: its report has told by then, or there may be room by then. */
const again_ms = 30_000;
/** Below it a forecast is a guess. */
const leastLikelihood = 0.5;

export class Preloader {
  readonly #deps: PreloaderDeps;
  readonly #asked = new Map<string, number>();
  readonly #arrivals = new Map<ModelId, Arrivals>();

  constructor(deps: PreloaderDeps) {
    this.#deps = deps;
  }

  /** A request for the model has come. */
  arrived(model_id: ModelId): void {
    if (!this.#deps.forecast) return;
    this.#arrivals.set(model_id, withArrival(this.#arrivals.get(model_id), this.#deps.clock.monotonicMs()));
  }

  /** Begins what is due without waiting for it. */
  turn(): void {
    const { fleet, clock, isLeader } = this.#deps;
    const now_ms = clock.monotonicMs();
    for (const [key, at_ms] of this.#asked) if (now_ms - at_ms >= again_ms) this.#asked.delete(key);
    for (const model_id of this.#arrivals.keys()) {
      if (fleet.model(model_id) === null) this.#arrivals.delete(model_id);
    }
    if (!isLeader()) return;
    const wishes = fleet.activeModels().flatMap((model) => this.#wish(model, now_ms));
    if (wishes.length === 0) return;
    for (const preload of choosePreloads(fleet.view(), wishes)) {
      if (!this.#asked.has(keyOf(preload))) void this.#ask(preload, now_ms);
    }
  }

  #wish(model: FleetModel, now_ms: number): PreloadWish[] {
    const { model_id, checkpoint, preload } = model.row;
    const arrivals = this.#arrivals.get(model_id);
    const forecast = arrivals === undefined ? 0 : likelihoodOf(arrivals, now_ms);
    const likelihood = preload ? 1 : forecast;
    if (likelihood < leastLikelihood) return [];
    const { weights_bytes } = model.facts;
    return [{ model_id, checkpoint, weights_bytes, memory_bytes: bookedBytes(model, false), likelihood }];
  }

  /** Never rejects. */
  async #ask(preload: Preload, now_ms: number): Promise<void> {
    const { fleet, workers, log } = this.#deps;
    const { worker_id, checkpoint, model_id } = preload;
    this.#asked.set(keyOf(preload), now_ms);
    const worker = fleet.worker(worker_id);
    if (worker === null) return;
    const { url, incarnation } = worker;
    try {
      const outcome = await workers.preload({ worker_id, url, incarnation }, checkpoint);
      log.info("preload", { model_id, worker_id, outcome });
    } catch (error) {
      log.warn("preload_failed", {
        model_id,
        worker_id,
        reason: error instanceof Error ? error.message : null,
      });
    }
  }
}

function keyOf({ worker_id, checkpoint }: { worker_id: WorkerId; checkpoint: CheckpointDigest }): string {
  return `${worker_id} ${checkpoint}`;
}
