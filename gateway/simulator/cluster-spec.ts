/** A simulated cluster in its parts: one entry per host and per model, with the names that the gateway knows them by. */
import type { CheckpointDigest, ModelId, WorkerId } from "../../schema/ids.ts";
import { instanceMemoryBytes } from "../../schema/memory.ts";
import type {
  SimulatedCluster,
  SimulatedHosts,
  SimulatedModels,
  SimulatedPolicy,
} from "../../schema/simulation.ts";
import type { SchedulingPolicy } from "../../schema/vocab.ts";
import type { Storage } from "./host.ts";

export interface ModelSpec extends SimulatedModels {
  readonly model_id: ModelId;
  readonly checkpoint: CheckpointDigest;
  readonly memory_bytes: number;
  readonly queue_delay_ms: number;
}

export interface HostSpec {
  readonly worker_id: WorkerId;
  readonly spec: SimulatedHosts;
}

export function modelsOf({
  models,
  system,
}: Pick<SimulatedCluster, "models" | "system">): readonly ModelSpec[] {
  const specs: ModelSpec[] = [];
  for (const model of models) {
    for (let copy = 0; copy < model.copies; copy++) {
      const model_id = model.copies === 1 ? model.name : `${model.name}-${copy}`;
      const checkpoint = specs.length.toString(16).padStart(64, "0");
      specs.push({
        ...model,
        model_id,
        checkpoint,
        memory_bytes: memoryOf(model),
        // Without a common line nobody waits for an instance of others longer than for one of its own.
        queue_delay_ms: system.queue === "plain" ? 0 : system.queue_delay_ms,
      });
    }
  }
  return specs;
}

function memoryOf(model: SimulatedModels): number {
  return instanceMemoryBytes(model, model.weights_bytes, { ...model, kv_tokens: null });
}

export function hostsOf({ hosts }: Pick<SimulatedCluster, "hosts">): readonly HostSpec[] {
  const all = hosts.flatMap((spec) => Array.from({ length: spec.count }, () => spec));
  return all.map((spec, i) => ({ worker_id: `w-${i.toString(16).padStart(16, "0")}`, spec }));
}

/** What a policy's name stands for: how the scheduler chooses, and what hosts keep. */
export function systemOf(policy: SimulatedPolicy): {
  readonly policy: SchedulingPolicy;
  readonly storage: Storage;
} {
  if (policy === "download-first") {
    return { policy: "random", storage: { host_tier: false, disk_tier: "none", is_pipelined: false } };
  }
  if (policy === "cache-on-disk") {
    return { policy: "random", storage: { host_tier: false, disk_tier: "cache", is_pipelined: false } };
  }
  return { policy, storage: { host_tier: true, disk_tier: "kept", is_pipelined: true } };
}
