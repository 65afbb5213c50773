/**
 * The generations of this worker: starts them on instances, refuses epochs that are over, lets further readers in, and
 * keeps the logs of ended ones for a while.
 */
import type { AttachEvent, AttachQuery, CancelQuery, CancelResponse } from "../../schema/cluster/attach.ts";
import type { EmbedRequest } from "../../schema/cluster/embed.ts";
import type { GenerateRequest, GenerationEvent, GenerationHop } from "../../schema/cluster/generate.ts";
import { SllmError } from "../../schema/error.ts";
import type { GatewayId, GenerationId, InstanceId, WorkerId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { Instance } from "../instances/instance.ts";
import type { Clock, EventReader } from "../ports.ts";
import { EngineRun } from "./engine-run.ts";
import { Generation } from "./generation.ts";
import { checkHistory, toEngine, toSettings } from "./requests.ts";

/** Generations whose epoch is remembered: minutes of work at thousands of requests a second. */
const rememberedEpochs = 100_000;

/** What a generation needs of its instance. */
export type GenerationTarget = Pick<
  Instance,
  "state" | "error" | "request" | "submit" | "cancel" | "hold" | "extend" | "followHeld" | "kv" | "moveKv"
>;

export interface RegistryOptions {
  readonly worker_id: WorkerId;
  /** Throws `not_found` for an instance that is not here. */
  readonly findInstance: (instance_id: InstanceId) => GenerationTarget;
  /** False: nothing begins here any more. */
  readonly isAccepting?: () => boolean;
  readonly clock: Clock;
}

interface SeenEpoch {
  readonly epoch: number;
  /** Whether a run began in it; else it only refuses what is below. */
  readonly wasStarted: boolean;
}

export class GenerationRegistry {
  readonly #options: RegistryOptions;
  /** The last run of each: those under way, and ended ones whose log is kept, the longest kept first. */
  readonly #runs = new Map<GenerationId, Generation>();
  #endedBytes = 0;
  /** Highest epoch seen per generation, oldest first. */
  readonly #epochs = new Map<GenerationId, SeenEpoch>();

  constructor(options: RegistryOptions) {
    this.#options = options;
  }

  /**
   * Starts a generation. A higher epoch of a running one is a new owner: the old run ends with `stale_generation`.
   * Errors: `stale_generation`, `state_conflict` when this very run exists, `invalid_request` for a history that does
   * not fit, `not_found`, `model_loading`, or the reason of an instance that failed.
   */
  start(request: GenerateRequest | EmbedRequest): Generation {
    const { generation_id, epoch } = request;
    if (this.#options.isAccepting?.() === false) {
      throw new SllmError("state_conflict", "This worker is shutting down.");
    }
    this.#refuseBelow(generation_id, epoch);
    if (this.hasStarted(generation_id, epoch)) {
      throw new SllmError("state_conflict", `Epoch ${epoch} of this generation was started here before.`);
    }
    if ("prompt" in request) checkHistory(request);
    const instance = readyInstance(this.#options.findInstance(request.instance_id));
    this.#remember(generation_id, { epoch, wasStarted: true });
    this.#supersede(generation_id, epoch);
    return this.#run(request, instance);
  }

  /**
   * Takes over a request that an engine holds for this generation: it goes on here, and is read from now on. Errors:
   * `stale_generation`, `invalid_request` for a history that does not fit.
   */
  adopt(request: GenerateRequest, run: EngineRun): Generation {
    const { generation_id, epoch } = request;
    this.refuseStarted(generation_id, epoch);
    checkHistory(request);
    this.#remember(generation_id, { epoch, wasStarted: true });
    this.#supersede(generation_id, epoch);
    const generation = this.#create(request, () => run.cancel());
    generation.run = run;
    generation.awaitReader();
    return generation;
  }

  /** Throws `stale_generation` when this epoch of a generation, or one above it, was begun or fenced off here. */
  refuseStarted(generation_id: GenerationId, epoch: number): void {
    this.#refuseBelow(generation_id, epoch);
    if (this.hasStarted(generation_id, epoch)) {
      throw new SllmError("stale_generation", `Epoch ${epoch} of this generation was started here before.`);
    }
  }

  /** Whether it runs, or ran, here in that very epoch. */
  hasStarted(generation_id: GenerationId, epoch: number): boolean {
    const seen = this.#epochs.get(generation_id);
    return seen?.epoch === epoch && seen.wasStarted;
  }

  /** A running one has this epoch and owner from now on. Errors: `not_found`, `stale_generation`. */
  raise(generation_id: GenerationId, epoch: number, owner: GatewayId | null): Generation {
    const run = this.find(generation_id);
    this.#refuseBelow(generation_id, epoch);
    this.#remember(generation_id, { epoch, wasStarted: true });
    run.own(epoch, owner);
    return run;
  }

  /** Lets a further reader in, as the owner from now on when it says an epoch. Errors as for `attachQuery`. */
  attach(generation_id: GenerationId, { from, epoch, owner }: AttachQuery): EventReader<AttachEvent> {
    const run = this.find(generation_id);
    if (epoch !== undefined) {
      this.#refuseBelow(generation_id, epoch);
      this.#remember(generation_id, { epoch, wasStarted: true });
      run.own(epoch, owner ?? null);
    }
    return run.attach(from);
  }

  /** The last run of a generation; `not_found` when there is none or its log is gone. */
  find(generation_id: GenerationId): Generation {
    const run = this.#runs.get(generation_id);
    if (run === undefined) throw new SllmError("not_found", "The generation is not known here.");
    return run;
  }

  /** Generations that run on an instance, or on any. */
  running(instance_id?: InstanceId): Generation[] {
    return [...this.#runs.values()].filter(
      (run) => !run.hasEnded && (instance_id === undefined || run.instance_id === instance_id),
    );
  }

  /**
   * Ends a generation for good; with an epoch, whatever runs or would begin here with a lower one. A run of that very
   * epoch is what the fence was put up for: it may overtake the fence on its way here. Errors: `stale_generation`.
   */
  cancel(generation_id: GenerationId, { epoch, unless_read }: CancelQuery = {}): CancelResponse {
    const run = this.#runs.get(generation_id);
    if (epoch !== undefined) {
      this.#refuseBelow(generation_id, epoch);
      const wasStarted = this.#epochs.get(generation_id)?.epoch === epoch && run !== undefined;
      this.#remember(generation_id, { epoch, wasStarted });
    }
    const isFence = epoch !== undefined && unless_read === undefined;
    const mayCancel = isFence ? run?.epoch !== epoch : unless_read === undefined || (run?.readers ?? 0) <= 1;
    const cancelled = mayCancel && run?.cancel() === true;
    const moved = run?.moved ?? null;
    return { generation_id, cancelled, ...(moved === null ? {} : { moved }) };
  }

  #refuseBelow(generation_id: GenerationId, epoch: number): void {
    const seen = this.#epochs.get(generation_id)?.epoch ?? 0;
    if (epoch >= seen) return;
    throw new SllmError("stale_generation", `Epoch ${epoch} is over; epoch ${seen} has been seen.`);
  }

  /** The run before ends; its log makes room for the new one's. */
  #supersede(generation_id: GenerationId, epoch: number): void {
    const before = this.#runs.get(generation_id);
    if (before === undefined) return;
    before.end({ code: "stale_generation", message: `Epoch ${epoch} has taken this generation over.` });
    this.#forget(before);
  }

  #run(request: GenerateRequest | EmbedRequest, instance: GenerationTarget): Generation {
    const generation = this.#create(request, () => instance.cancel(number));
    const { settings, adapter } = toEngine(request);
    const number = instance.submit(settings, (event: GenerationEvent) => generation.push(event), adapter);
    generation.run = new EngineRun(instance, number);
    return generation;
  }

  #create(request: GenerateRequest | EmbedRequest, onCancel: () => void): Generation {
    const generation: Generation = new Generation({
      ...this.#describe(request),
      clock: this.#options.clock,
      onCancel,
      onEnd: () => this.#onEnd(generation),
      onLeft: () => this.#forget(generation),
    });
    this.#runs.set(request.generation_id, generation);
    return generation;
  }

  #describe(request: GenerateRequest | EmbedRequest) {
    const { generation_id, epoch, instance_id } = request;
    const run = { generation_id, epoch, instance_id };
    const { worker_id } = this.#options;
    if ("inputs" in request) {
      return { ...run, settings: null, hops: [{ worker_id, epoch, first_index: 0 }] };
    }
    const { owner, resume, history, tell_prompt = false } = request;
    const first_index = resume?.output.length ?? 0;
    const before: readonly GenerationHop[] = history?.hops ?? [];
    const hops = [
      ...before.filter((hop) => hop.first_index < first_index),
      { worker_id, epoch, first_index },
    ];
    return {
      ...{ ...run, owner, tell_prompt, hops, settings: toSettings(request) },
      ...(resume === undefined ? {} : { prompt: resume.prompt }),
      told: history?.told ?? [],
    };
  }

  /** Its log stays for late readers, within the bound for all of them. */
  #onEnd(run: Generation): void {
    if (this.#runs.get(run.generation_id) !== run) return;
    this.#endedBytes += run.bytes;
    this.#runs.delete(run.generation_id);
    this.#runs.set(run.generation_id, run);
    for (const kept of this.#runs.values()) {
      if (this.#endedBytes <= limits.ended_logs_bytes) break;
      if (kept.hasEnded) this.#forget(kept);
    }
  }

  #forget(run: Generation): void {
    if (this.#runs.get(run.generation_id) !== run) return;
    this.#runs.delete(run.generation_id);
    if (run.hasEnded) this.#endedBytes -= run.bytes;
  }

  #remember(generation_id: GenerationId, seen: SeenEpoch): void {
    this.#epochs.delete(generation_id);
    this.#epochs.set(generation_id, seen);
    for (const oldest of this.#epochs.keys()) {
      if (this.#epochs.size <= rememberedEpochs) break;
      this.#epochs.delete(oldest);
    }
  }
}

function readyInstance(instance: GenerationTarget): GenerationTarget {
  switch (instance.state) {
    case "ready":
      return instance;
    case "loading":
      throw new SllmError("model_loading", "The instance is still loading.");
    case "failed":
      throw new SllmError(
        instance.error?.code ?? "engine_failed",
        instance.error?.message ?? "The instance failed.",
      );
    default:
      throw new SllmError("state_conflict", `The instance is ${instance.state}.`);
  }
}
