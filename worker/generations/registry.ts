/** The generations of this worker: starts them on instances, refuses old epochs, finds them for a cancel. */
import type { EmbedRequest } from "../../schema/cluster/embed.ts";
import type { GenerateRequest } from "../../schema/cluster/generate.ts";
import { SllmError } from "../../schema/error.ts";
import type { CheckpointDigest, GenerationId, InstanceId } from "../../schema/ids.ts";
import type { Instance } from "../instances/instance.ts";
import type { EmbedSettings, GenerateSettings } from "../instances/request-table.ts";
import type { Clock } from "../ports.ts";
import { Generation } from "./generation.ts";

/** Ended generations whose epoch is remembered: minutes of work at thousands of requests a second. */
const rememberedEpochs = 100_000;

/** What a generation needs of its instance. */
export type GenerationTarget = Pick<Instance, "state" | "error" | "submit" | "cancel">;

export interface RegistryOptions {
  /** Throws `not_found` for an instance that is not here. */
  readonly findInstance: (instance_id: InstanceId) => GenerationTarget;
  readonly clock: Clock;
}

export class GenerationRegistry {
  readonly #options: RegistryOptions;
  readonly #running = new Map<GenerationId, Generation>();
  /** Highest epoch seen per generation, oldest first. */
  readonly #epochs = new Map<GenerationId, number>();

  constructor(options: RegistryOptions) {
    this.#options = options;
  }

  /**
   * Starts a generation; its reader is the result. A higher epoch of a running generation is a new owner: the old
   * run ends with `stale_epoch`. Errors: `stale_epoch`, `state_conflict` when this very run exists, `not_found`,
   * `model_loading`, or the reason of an instance that failed.
   */
  start(request: GenerateRequest | EmbedRequest): Generation {
    const { generation_id, epoch } = request;
    const seen = this.#epochs.get(generation_id) ?? 0;
    if (epoch < seen) {
      throw new SllmError("stale_epoch", `Epoch ${epoch} is over; epoch ${seen} has been seen.`);
    }
    if (epoch === seen) {
      throw new SllmError("state_conflict", `Epoch ${epoch} of this generation was started here before.`);
    }
    const instance = readyInstance(this.#options.findInstance(request.instance_id));
    this.#remember(generation_id, epoch);
    const before = this.#running.get(generation_id);
    before?.end({ code: "stale_epoch", message: `Epoch ${epoch} has taken this generation over.` });
    return this.#run(request, instance);
  }

  /** Ends a generation for good. False when it is not running here. */
  cancel(generation_id: GenerationId): boolean {
    return this.#running.get(generation_id)?.cancel() ?? false;
  }

  #run(request: GenerateRequest | EmbedRequest, instance: GenerationTarget): Generation {
    const { generation_id, epoch } = request;
    const generation: Generation = new Generation({
      generation_id,
      epoch,
      clock: this.#options.clock,
      onCancel: () => instance.cancel(number),
      onEnd: () => {
        if (this.#running.get(generation_id) === generation) this.#running.delete(generation_id);
      },
    });
    this.#running.set(generation_id, generation);
    const { settings, adapter } = toSettings(request);
    const number = instance.submit(settings, (event) => generation.push(event), adapter);
    return generation;
  }

  #remember(generation_id: GenerationId, epoch: number): void {
    this.#epochs.delete(generation_id);
    this.#epochs.set(generation_id, epoch);
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

interface Wanted {
  readonly settings: GenerateSettings | EmbedSettings;
  /** Checkpoint of the adapter that is to answer. */
  readonly adapter?: CheckpointDigest | undefined;
}

function toSettings(request: GenerateRequest | EmbedRequest): Wanted {
  const { protocol_version: _, generation_id: __, epoch: ___, instance_id: ____, ...rest } = request;
  if ("inputs" in rest) return { settings: rest };
  const { adapter, ...settings } = rest;
  return { settings, adapter };
}
