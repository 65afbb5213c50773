/** The generations of a worker with those that come and go, put together. */
import type { InstanceId, WorkerId } from "../../schema/ids.ts";
import { GenerationRegistry, type GenerationTarget } from "../generations/registry.ts";
import type { Clock } from "../ports.ts";
import { Arrivals } from "./arrivals.ts";
import { Departures } from "./departures.ts";
import { type Fetch, httpDestination } from "./destination.ts";
import { type KvFiles, SharedMemoryFiles } from "./kv-files.ts";

export interface GenerationPartsOptions {
  readonly worker_id: WorkerId;
  readonly cluster_token: string;
  /** Throws `not_found` for an instance that is not here. */
  readonly findInstance: (instance_id: InstanceId) => GenerationTarget;
  /** False while the worker lets its streams go: it begins nothing new. */
  readonly isAccepting?: () => boolean;
  readonly fetch: Fetch;
  /** Where parts of KV caches pass through; shared memory if left out. */
  readonly kvFiles?: KvFiles;
  readonly clock: Clock;
}

export interface GenerationParts {
  readonly generations: GenerationRegistry;
  readonly departures: Departures;
  readonly arrivals: Arrivals;
}

export function generationParts(options: GenerationPartsOptions): GenerationParts {
  const { worker_id, cluster_token, findInstance, isAccepting = () => true, fetch, clock } = options;
  const { kvFiles = new SharedMemoryFiles(worker_id) } = options;
  const generations = new GenerationRegistry({ worker_id, findInstance, isAccepting, clock });
  const departures = new Departures({
    ...{ worker_id, generations, kvFiles, clock },
    checkpointOf: (instance_id) => findInstance(instance_id).request.checkpoint,
    openDestination: (to) => httpDestination({ to, cluster_token, fetch }),
  });
  const arrivals = new Arrivals({
    ...{ findInstance, isAccepting, kvFiles, clock },
    checkEpoch: (generation_id, epoch) => generations.refuseStarted(generation_id, epoch),
    adopt: (request, run) => {
      const generation = generations.adopt(request, run);
      return (event) => generation.push(event);
    },
    has: (generation_id, epoch) => generations.hasStarted(generation_id, epoch),
  });
  return { generations, departures, arrivals };
}
