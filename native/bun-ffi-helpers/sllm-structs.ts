/** The structs and constants of sllm.h. test/tidy/abi-drift.test.ts compares them with what a C compiler says. */
import { struct } from "./struct.ts";

/** SLLM_ABI_VERSION of the header these layouts were written for; the major half must agree. */
export const abiVersion = 0x0001_0005;

/** sllm_status, by name. */
export const statuses = {
  SLLM_OK: 0,
  SLLM_E_INVALID_ARGUMENT: -1,
  SLLM_E_NOT_FOUND: -2,
  SLLM_E_BUFFER_TOO_SMALL: -3,
  SLLM_E_OVERLOADED: -4,
  SLLM_E_CLOSED: -5,
  SLLM_E_OUT_OF_MEMORY: -6,
  SLLM_E_WRONG_STATE: -7,
  SLLM_E_IO: -10,
  SLLM_E_CORRUPT: -11,
  SLLM_E_LIBRARY_MISSING: -20,
  SLLM_E_LIBRARY_VERSION: -21,
  SLLM_E_MODEL_UNSUPPORTED: -22,
  SLLM_E_CONTEXT_OVERFLOW: -30,
  SLLM_E_CANCELLED: -31,
  SLLM_E_ENGINE: -32,
  SLLM_E_INTERNAL: -99,
} as const;
/** Names of failures; a status outside the table counts as SLLM_E_INTERNAL. */
export type FailureName = Exclude<keyof typeof statuses, "SLLM_OK">;

const namesByStatus = new Map<number, FailureName>(
  Object.entries(statuses).flatMap(([name, status]) => (status === 0 ? [] : [[status, name as FailureName]])),
);

/** Name of a negative status. */
export function failureName(status: number): FailureName {
  return namesByStatus.get(status) ?? "SLLM_E_INTERNAL";
}

export const engineKind = { SLLM_ENGINE_LLAMA: 0, SLLM_ENGINE_ECHO: 1 } as const;
export const eventKind = {
  SLLM_EVENT_STARTED: 1,
  SLLM_EVENT_TOKEN: 2,
  SLLM_EVENT_DONE: 3,
  SLLM_EVENT_ERROR: 4,
  SLLM_EVENT_VECTOR: 5,
  SLLM_EVENT_HELD: 6,
  SLLM_EVENT_KV: 7,
} as const;
export const finishKind = { SLLM_FINISH_STOP: 1, SLLM_FINISH_LENGTH: 2 } as const;

export const storeParams = struct("sllm_store_params", {
  struct_size: "u32",
  reader_threads: "u32",
  arena_bytes: "u64",
  prefault_bytes: "u64",
  huge_pages: "u32",
  read_method: "u32",
  state_dir: "pointer",
  read_bytes_per_second: "u64",
});

export const arenaStatus = struct("sllm_arena_status", {
  struct_size: "u32",
  prefaulting: "u32",
  arena_bytes: "u64",
  used_bytes: "u64",
  faulted_bytes: "u64",
  prefault_bytes: "u64",
  prefault_ms: "f64",
  huge_bytes: "u64",
});

export const volumeStatus = struct("sllm_volume_status", {
  struct_size: "u32",
  read_method: "u32",
  file_system: "u64",
  block_bytes: "u64",
  in_flight_bytes: "u64",
  queued_bytes: "u64",
  queued_loads: "u32",
  direct_io: "u32",
  bytes_per_second: "f64",
  registered_bytes: "u64",
  probed: "u32",
  reserved: "u32",
});

export const loadParams = struct("sllm_load_params", {
  struct_size: "u32",
  stream_chunks: "u32",
  weights_path: "pointer",
  weights_bytes: "u64",
  chunk_bytes: "u64",
  chunk_digests: "pointer",
  n_chunks: "u64",
  lanes: "u32",
  reserved: "u32",
});

export const loadStatus = struct("sllm_load_status", {
  struct_size: "u32",
  state: "i32",
  fd: "i32",
  direct_io: "u32",
  bytes_done: "u64",
  bytes_total: "u64",
  read_ms: "f64",
  message: "char[512]",
  first_read_ms: "f64",
  first_verified_ms: "f64",
  last_read_ms: "f64",
  ended_ms: "f64",
  memory_wait_ms: "f64",
  fault_ms: "f64",
  digest_ms: "f64",
  direct_bytes: "u64",
  cached_bytes: "u64",
  buffered_bytes: "u64",
  retries: "u32",
  rereads: "u32",
});

export const engineParams = struct("sllm_engine_params", {
  struct_size: "u32",
  kind: "u32",
  library_dir: "pointer",
  header_path: "pointer",
  weights_path: "pointer",
  weights_bytes: "u64",
  context_tokens: "u32",
  slots: "u32",
  batch_tokens: "u32",
  threads: "u32",
  queue: "u32",
  echo_token_us: "u32",
  devices: "pointer",
  prefill_tokens: "u32",
  kv_tokens: "u32",
  deterministic: "u32",
  repacked: "u32",
});

export const engineInfo = struct("sllm_engine_info", {
  struct_size: "u32",
  vocabulary_tokens: "u32",
  context_tokens: "u32",
  slots: "u32",
  model_build_ms: "f64",
  weights_wait_ms: "f64",
  uploaded_bytes: "u64",
  upload_ms: "f64",
  upload_wait_ms: "f64",
  fingerprint: "char[256]",
  pooling: "u32",
  embedding_values: "u32",
  kv_token_bytes: "u64",
  kv_fingerprint: "char[256]",
});

export const engineActivity = struct("sllm_engine_activity", {
  struct_size: "u32",
  slots: "u32",
  running: "u32",
  waiting: "u32",
  kv_tokens: "u64",
  kv_used_tokens: "u64",
  steps: "u64",
  computed_tokens: "u64",
  progress: "u64",
  last_step_tokens: "u32",
  computing: "u32",
});

export const textSpan = struct("sllm_text", { data: "pointer", bytes: "u64" });

export const logitBias = struct("sllm_logit_bias", { token: "i32", bias: "f32" });

export const logprob = struct("sllm_logprob", { token: "i32", piece_bytes: "u32", logprob: "f64" });

export const request = struct("sllm_request", {
  struct_size: "u32",
  ignore_eos: "u32",
  request: "u64",
  prompt: "pointer",
  n_prompt: "u64",
  max_tokens: "u64",
  seed: "u64",
  temperature: "f64",
  top_p: "f64",
  min_p: "f64",
  top_k: "u32",
  n_stop: "u32",
  stop: "pointer",
  typical_p: "f64",
  repeat_penalty: "f64",
  presence_penalty: "f64",
  frequency_penalty: "f64",
  repeat_last_n: "u32",
  logprobs: "u32",
  logit_bias: "pointer",
  n_logit_bias: "u64",
  constraint: "pointer",
  constraint_bytes: "u64",
  resume: "pointer",
  n_resume: "u64",
  dimensions: "u32",
  adapter: "u32",
  held: "u32",
  awaits_kv: "u32",
});

export const adapterParams = struct("sllm_adapter_params", {
  struct_size: "u32",
  adapter: "u32",
  header_path: "pointer",
  weights_path: "pointer",
  weights_bytes: "u64",
  scale: "f64",
});

export const event = struct("sllm_event", {
  request: "u64",
  kind: "u32",
  status: "i32",
  token: "i32",
  index: "u32",
  text_offset: "u32",
  text_bytes: "u32",
  prompt_tokens: "u32",
  logprob_bytes: "u32",
  queue_ms: "f64",
  prefill_ms: "f64",
  decode_ms: "f64",
});

/** All structs of the header, for checks. */
export const structs = [
  storeParams,
  arenaStatus,
  volumeStatus,
  loadParams,
  loadStatus,
  engineParams,
  engineInfo,
  engineActivity,
  textSpan,
  logitBias,
  logprob,
  request,
  adapterParams,
  event,
] as const;
