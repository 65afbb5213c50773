/** Small, valid manifests, reports and requests with ids that no other test uses. */

import { createHash } from "node:crypto";
import type { DeployRequest } from "../../schema/api/admin.ts";
import { digestText } from "../../schema/checkpoint/digest-text.ts";
import {
  type AdapterManifest,
  checkpointVersion,
  type Manifest,
  type TensorEntry,
} from "../../schema/checkpoint/manifest.ts";
import type { EngineActivity } from "../../schema/cluster/activity.ts";
import type {
  DeviceReport,
  HeartbeatRequest,
  InstanceReport,
  PlacementReport,
  RegisterRequest,
} from "../../schema/cluster/membership.ts";
import { protocolVersion } from "../../schema/cluster/protocol.ts";
import { type InstanceId, toHex } from "../../schema/ids.ts";

const hex = (bytes: number) => toHex(crypto.getRandomValues(new Uint8Array(bytes)));

export const newModelId = () => `model-${hex(4)}`;
export const newWorkerId = () => `w-${hex(8)}`;
export const newInstanceId = (): InstanceId => `i-${hex(8)}`;
export const newGenerationId = () => hex(16);
export const newIncarnation = () => hex(8);
export const newDigest = () => hex(32);

/** A manifest of content that does not exist, under the digest that such content would have. */
export function makeManifest(): Manifest {
  const header = { bytes: 100, sha256: hex(32) };
  const weights = { bytes: 4_096, chunk_bytes: 4_096, chunks: [{ sha256: hex(32), xxh3: hex(8) }] };
  return {
    version: checkpointVersion,
    digest: createHash("sha256").update(digestText({ header, weights })).digest("hex"),
    model: {
      architecture: "llama",
      name: "tiny",
      parameters: 1_000,
      layers: 1,
      embedding: 16,
      vocabulary_tokens: 64,
      context_tokens: 128,
      quantisation: "F16",
      kv_bytes_per_token: 64,
      chat_template_sha256: null,
    },
    header,
    weights,
    tensors: [
      { name: "token_embd.weight", dtype: "F16", shape: [16, 64], layer: -1, offset: 0, bytes: 2_048 },
      { name: "blk.0.attn_q.weight", dtype: "F16", shape: [16, 16], layer: 0, offset: 2_048, bytes: 512 },
    ],
  };
}

/** An adapter of rank 4 for the model of `makeManifest`, likewise of content that does not exist. */
export function makeAdapterManifest(
  fields: {
    readonly architecture?: string;
    readonly tensors?: readonly TensorEntry[];
    readonly weights_bytes?: number;
  } = {},
): AdapterManifest {
  const { architecture = "llama", weights_bytes = 4_096 } = fields;
  const header = { bytes: 100, sha256: hex(32) };
  const weights = {
    bytes: weights_bytes,
    chunk_bytes: weights_bytes,
    chunks: [{ sha256: hex(32), xxh3: hex(8) }],
  };
  const tensors = fields.tensors ?? [
    adapterTensor("blk.0.attn_q.weight.lora_a", [16, 4], 0),
    adapterTensor("blk.0.attn_q.weight.lora_b", [4, 16], 1),
  ];
  return {
    version: checkpointVersion,
    digest: createHash("sha256").update(digestText({ header, weights })).digest("hex"),
    adapter: {
      kind: "lora",
      architecture,
      name: "tiny",
      parameters: 128,
      rank: 4,
      alpha: 4,
      quantisation: "F32",
    },
    header,
    weights,
    tensors: [...tensors],
  };
}

/** A tensor at the `place`th kilobyte. */
export function adapterTensor(name: string, shape: number[], place: number): TensorEntry {
  return { name, dtype: "F32", shape, layer: 0, offset: place * 1_024, bytes: 256 };
}

export function makeDeployRequest(fields: Partial<DeployRequest> = {}): DeployRequest {
  return { id: newModelId(), manifest: makeManifest(), settings: { slots: 4 }, replace: false, ...fields };
}

/** What the gateway derives from a request's settings. */
export const resolvedSettings = { context_tokens: 128, keep_alive_ms: 60_000 };

export const cpuDevice = (memory_bytes: number): DeviceReport => ({
  device_id: "cpu",
  kind: "cpu",
  memory_bytes,
});

export function makeRegisterRequest(fields: Partial<RegisterRequest> = {}): RegisterRequest {
  return {
    protocol_version: protocolVersion,
    worker_id: newWorkerId(),
    incarnation: newIncarnation(),
    state: "ready",
    placements: [],
    instances: [],
    links: [],
    problems: [],
    url: "http://127.0.0.1:4000",
    version: "0.0.0-test",
    devices: [cpuDevice(1_000)],
    ...fields,
  };
}

export function makeHeartbeat(
  worker: Pick<RegisterRequest, "worker_id" | "incarnation">,
  sequence: number,
  fields: Partial<HeartbeatRequest> = {},
): HeartbeatRequest {
  return {
    protocol_version: protocolVersion,
    worker_id: worker.worker_id,
    incarnation: worker.incarnation,
    state: "ready",
    placements: [],
    instances: [],
    links: [],
    problems: [],
    sequence,
    ...fields,
  };
}

export const makePlacement = (fields: Partial<PlacementReport> = {}): PlacementReport => ({
  checkpoint: newDigest(),
  tier: "disk",
  state: "present",
  bytes_present: 4_096,
  ...fields,
});

export const makeInstanceReport = (
  instance_id: InstanceId,
  fields: Partial<InstanceReport> = {},
): InstanceReport => ({
  instance_id,
  model_id: "any",
  state: "ready",
  active: 0,
  queued: 0,
  error: null,
  ...fields,
});

/** What an engine may be at: two requests in slots, one waiting. */
export const busyEngine: EngineActivity = {
  slots: 4,
  running: 2,
  waiting: 1,
  kv_tokens: 4096,
  kv_used_tokens: 300,
  steps: 12,
  computed_tokens: 320,
  last_step_tokens: 2,
};
