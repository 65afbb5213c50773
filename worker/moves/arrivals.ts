/**
 * Generations that other workers send here: held by their engines, given more in rounds, and let go with the last
 * tokens, from when on they are generations of this worker.
 */
import type { GenerateRequest, GenerationEvent } from "../../schema/cluster/generate.ts";
import type { KvPart } from "../../schema/cluster/kv.ts";
import type { ArrivalGo, ArrivalProgress, ArrivalRequest, ArrivalRound } from "../../schema/cluster/moves.ts";
import { SllmError } from "../../schema/error.ts";
import type { GenerationId, InstanceId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { EngineRun } from "../generations/engine-run.ts";
import type { Instance } from "../instances/instance.ts";
import type { Clock } from "../ports.ts";
import { Arrival } from "./arrival.ts";
import type { KvFiles } from "./kv-files.ts";

/** What an arrival needs of its instance. */
export type ArrivalTarget = Pick<
  Instance,
  "state" | "request" | "submit" | "cancel" | "hold" | "extend" | "followHeld" | "kv" | "moveKv"
>;

/** A generation that runs here: gets its engine's events. */
export type Adopted = (event: GenerationEvent) => void;

export interface ArrivalsOptions {
  /** Throws `not_found` for an instance that is not here. */
  readonly findInstance: (instance_id: InstanceId) => ArrivalTarget;
  readonly isAccepting: () => boolean;
  /** Throws `stale_generation` when an epoch like this or above was seen of the generation. */
  readonly checkEpoch: (generation_id: GenerationId, epoch: number) => void;
  /** Makes it a generation of this worker in its epoch; throws as `checkEpoch` does. */
  readonly adopt: (request: GenerateRequest, run: EngineRun) => Adopted;
  /** Whether it runs, or ran, here in that very epoch. */
  readonly has: (generation_id: GenerationId, epoch: number) => boolean;
  readonly kvFiles: KvFiles;
  readonly clock: Clock;
}

export class Arrivals {
  readonly #options: ArrivalsOptions;
  readonly #arriving = new Map<GenerationId, Arrival>();

  constructor(options: ArrivalsOptions) {
    this.#options = options;
  }

  /**
   * See `arrivalRequest`. One that was on its way here before makes place: its source begins anew. True when it waits for
   * rows of the KV cache.
   */
  open(request: ArrivalRequest): boolean {
    const { generation_id, epoch, instance_id, checkpoint } = request;
    if (!this.#options.isAccepting()) {
      throw new SllmError("state_conflict", "This worker is shutting down.");
    }
    this.#options.checkEpoch(generation_id, epoch);
    const before = this.#arriving.get(generation_id);
    if (before !== undefined && before.epoch > epoch) {
      throw new SllmError(
        "stale_generation",
        `It is on its way here in epoch ${before.epoch}, not ${epoch}.`,
      );
    }
    if (this.#arriving.size >= limits.arrivals) {
      throw new SllmError("overloaded", `${limits.arrivals} generations are on their way here already.`);
    }
    const instance = this.#options.findInstance(instance_id);
    if (instance.state !== "ready") {
      throw new SllmError("state_conflict", `The instance is ${instance.state}.`);
    }
    if (instance.request.checkpoint !== checkpoint) {
      throw new SllmError("state_conflict", "The instance runs another checkpoint.");
    }
    before?.drop();
    const { clock, kvFiles } = this.#options;
    const takesKv = takesRows(request, instance);
    const onGone = (gone: Arrival) => {
      if (this.#arriving.get(generation_id) === gone) this.#arriving.delete(generation_id);
    };
    this.#arriving.set(generation_id, new Arrival({ request, instance, takesKv, kvFiles, clock, onGone }));
    return takesKv;
  }

  /** See `kvPart`. */
  async takeKv(generation_id: GenerationId, part: KvPart, rows: Uint8Array): Promise<void> {
    await this.#find(generation_id, part.epoch).takeKv(part, rows);
  }

  /** See `arrivalRound`. Errors: those of `go`, and what the engine has ended it with. */
  async round(generation_id: GenerationId, { epoch, told, wait_ms }: ArrivalRound): Promise<ArrivalProgress> {
    const arrival = this.#find(generation_id, epoch);
    arrival.take(told);
    return await arrival.caughtUp(wait_ms);
  }

  /** See `arrivalGo`. */
  go(generation_id: GenerationId, { epoch, owner, told }: ArrivalGo): void {
    if (this.#options.has(generation_id, epoch)) return;
    const arrival = this.#find(generation_id, epoch);
    arrival.go(owner, told, this.#options.adopt);
  }

  /** False when it is not on its way here in that epoch. */
  drop(generation_id: GenerationId, epoch: number): boolean {
    const arrival = this.#arriving.get(generation_id);
    if (arrival?.epoch !== epoch) return false;
    arrival.drop();
    return true;
  }

  #find(generation_id: GenerationId, epoch: number): Arrival {
    const arrival = this.#arriving.get(generation_id);
    if (arrival === undefined) {
      throw new SllmError("not_found", `Generation ${generation_id} is not on its way here.`);
    }
    if (arrival.epoch !== epoch) {
      throw new SllmError(
        "stale_generation",
        `It is on its way here in epoch ${arrival.epoch}, not ${epoch}.`,
      );
    }
    return arrival;
  }
}

/** What an adapter has computed is another cache; the fingerprint is the engine's, and names none. */
function takesRows({ kv, adapter }: ArrivalRequest, instance: ArrivalTarget): boolean {
  return kv !== undefined && adapter === undefined && kv.fingerprint === instance.kv?.fingerprint;
}
