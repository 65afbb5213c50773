/** Rows as the admin API shows them: chosen fields, times in ISO 8601. Pure. */
import type {
  AdminEstimate,
  AdminGeneration,
  AdminInstance,
  AdminWorker,
  DeployedModel,
} from "../../schema/api/admin.ts";
import type {
  CheckpointRow,
  EstimateRow,
  GenerationRow,
  InstanceRow,
  ModelRow,
  WorkerRow,
} from "../../schema/db/tables.ts";
import type { WireError } from "../../schema/error.ts";
import { deviceKinds } from "../../schema/vocab.ts";
import { median, quantile } from "../placement/estimates/robust.ts";
import type { ReportedLoad } from "../placement/worker-reports.ts";
import type { ClusterSnapshot } from "../ports.ts";

export function toDeployedModel(
  model: ModelRow,
  checkpoint: CheckpointRow,
  instances: readonly InstanceRow[],
): DeployedModel {
  const { manifest } = checkpoint;
  return {
    id: model.model_id,
    state: model.state,
    checkpoint: model.checkpoint,
    architecture: manifest.model.architecture,
    parameters: manifest.model.parameters,
    weights_bytes: manifest.weights.bytes,
    kv_bytes_per_token: manifest.model.kv_bytes_per_token,
    embedding: manifest.model.embedding,
    vocabulary_tokens: manifest.model.vocabulary_tokens,
    context_tokens: model.context_tokens,
    slots: model.slots,
    kv_tokens: model.kv_tokens,
    deterministic: model.deterministic,
    keep_alive_ms: model.keep_alive_ms,
    min_instances: model.min_instances,
    max_instances: model.max_instances,
    target_concurrency: model.target_concurrency,
    queue_delay_ms: model.queue_delay_ms,
    preload: model.preload,
    created_at: model.created_at.toISOString(),
    instances: instances
      .filter((i) => i.model_id === model.model_id)
      .map(({ instance_id, worker_id, state }) => ({ instance_id, worker_id, state })),
  };
}

export function toAdminWorker(worker: WorkerRow, snapshot: ClusterSnapshot): AdminWorker {
  const { worker_id, state, url, version, links, problems } = worker;
  return {
    worker_id,
    state,
    url,
    version,
    last_heartbeat_at: worker.last_heartbeat_at?.toISOString() ?? null,
    devices: snapshot.devices
      .filter((d) => d.worker_id === worker_id)
      .map(({ device_id, kind, memory_bytes, reserved_bytes }) => ({
        device_id,
        kind,
        memory_bytes,
        reserved_bytes,
      })),
    links,
    problems,
    placements: snapshot.placements
      .filter((p) => p.worker_id === worker_id)
      .map(({ checkpoint, tier, state, bytes_present }) => ({ checkpoint, tier, state, bytes_present })),
  };
}

/** `reported` is the worker's own count; without one, what this gateway sent there. */
export function toAdminInstance(
  instance: InstanceRow,
  reported: ReportedLoad | null,
  inFlight: number,
  last_used_ms: number,
): AdminInstance {
  const { instance_id, model_id, worker_id, device_id, state, memory_bytes, slots } = instance;
  const own = { active: Math.min(inFlight, slots), queued: Math.max(0, inFlight - slots) };
  const { active, queued } = reported ?? own;
  return {
    instance_id,
    model_id,
    worker_id,
    device_id,
    state,
    memory_bytes,
    slots,
    fingerprint: instance.fingerprint,
    active,
    queued,
    activity: reported?.activity ?? null,
    error: toWireError(instance),
    created_at: instance.created_at.toISOString(),
    ready_at: instance.ready_at?.toISOString() ?? null,
    last_used_at: last_used_ms > 0 ? new Date(last_used_ms).toISOString() : null,
  };
}

export function toAdminEstimate(row: EstimateRow): AdminEstimate {
  const { quantity, worker_id, model_id, device_kind, detail, values, errors, observations } = row;
  return {
    quantity,
    worker_id: named(worker_id),
    model_id: named(model_id),
    device_kind: deviceKinds.find((kind) => kind === device_kind) ?? null,
    detail: named(detail),
    // Kept as pairs of tokens and milliseconds: what one token took.
    value: quantity === "prefill" || quantity === "decode" ? median(perToken(values)) : median(values),
    observations,
    error_p50: quantile(errors, 0.5),
    error_p90: quantile(errors, 0.9),
    updated_at: row.updated_at.toISOString(),
  };
}

function named(text: string): string | null {
  return text === "" ? null : text;
}

function perToken(pairs: readonly number[]): number[] {
  return pairs.flatMap((tokens, i) => (i % 2 === 0 ? [(pairs[i + 1] ?? 0) / tokens] : []));
}

export function toAdminGeneration(row: GenerationRow): AdminGeneration {
  const { generation_id, model_id, state, worker_id, instance_id, epoch, owner, cold_start } = row;
  const { prompt_tokens, completion_tokens, finish_reason, timeline_ms } = row;
  return {
    generation_id,
    model_id,
    state,
    worker_id,
    instance_id,
    epoch,
    owner,
    cold_start,
    prompt_tokens,
    completion_tokens,
    finish_reason,
    error: toWireError(row),
    timeline_ms,
    created_at: row.created_at.toISOString(),
    finished_at: row.finished_at?.toISOString() ?? null,
  };
}

function toWireError(row: Pick<InstanceRow, "error_code" | "error_message">): WireError | null {
  return row.error_code === null ? null : { code: row.error_code, message: row.error_message ?? "" };
}
