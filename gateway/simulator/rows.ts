/** Rows of a simulated cluster, as the database would hold them. Pure. */
import type { LinkReport } from "../../schema/cluster/membership.ts";
import type { CheckpointRow, InstanceRow, ModelRow, WorkerRow } from "../../schema/db/tables.ts";
import type { WorkerId } from "../../schema/ids.ts";
import type { NewInstance } from "../ports.ts";
import type { ModelSpec } from "./cluster-spec.ts";

const begin = new Date(0);
/** One process per host, from the start to the end. */
export const incarnation = "0".repeat(16);

export function workerRow(worker_id: WorkerId, links: LinkReport[]): WorkerRow {
  return {
    ...{ worker_id, incarnation, state: "ready", url: `http://${worker_id}`, version: "simulated", links },
    ...{ heartbeat_sequence: 0, last_heartbeat_at: begin, problems: [], created_at: begin },
  };
}

export function modelRow(spec: ModelSpec): ModelRow {
  const { model_id, checkpoint, context_tokens, slots, keep_alive_ms, min_instances, max_instances } = spec;
  return {
    ...{
      model_id,
      state: "active",
      checkpoint,
      context_tokens,
      slots,
      keep_alive_ms,
      min_instances,
      max_instances,
    },
    ...{ kv_tokens: null, deterministic: false, target_concurrency: null, preload: false, created_at: begin },
    queue_delay_ms: spec.queue_delay_ms,
  };
}

export function checkpointRow(spec: ModelSpec): CheckpointRow {
  const {
    checkpoint,
    model_id,
    weights_bytes,
    embedding,
    vocabulary_tokens,
    context_tokens,
    kv_bytes_per_token,
  } = spec;
  const model = {
    ...{ architecture: "simulated", name: model_id, parameters: 1, layers: 1, quantisation: "F16" },
    ...{ embedding, vocabulary_tokens, context_tokens, kv_bytes_per_token, chat_template_sha256: null },
  };
  const weights = { bytes: weights_bytes, chunk_bytes: 1, chunks: [] };
  const header = { bytes: 0, sha256: checkpoint };
  const manifest = { version: 1 as const, digest: checkpoint, model, header, weights, tensors: [] };
  return { digest: checkpoint, manifest, created_at: begin };
}

export function newInstanceRow(wanted: NewInstance, created_at: Date): InstanceRow {
  const { kv_tokens = null, deterministic = false, adapter_bytes = 0, expected_live: _, ...rest } = wanted;
  return {
    ...{ ...rest, kv_tokens, deterministic, adapter_bytes, incarnation, state: "loading", created_at },
    ...{ fingerprint: null, error_code: null, error_message: null },
    ...{ ready_at: null, last_used_at: null, ended_at: null },
  };
}
