/**
 * Every error code of the system: its HTTP status, the OpenAI error type, whether the same request can succeed
 * later, and what the reader should do. Clients match `code`; messages are for people.
 * Longer than other files because it is one table.
 */

interface CodeRow {
  readonly http_status: number;
  readonly type:
    | "invalid_request_error"
    | "authentication_error"
    | "permission_error"
    | "not_found_error"
    | "conflict_error"
    | "rate_limit_error"
    | "server_error";
  readonly retryable: boolean;
  /** What helps, one sentence for the person who meets it. */
  readonly hint: string;
}

export const codes = {
  invalid_request: {
    http_status: 400,
    type: "invalid_request_error",
    retryable: false,
    hint: "Correct the named field and send the request again.",
  },
  unsupported_parameter: {
    http_status: 400,
    type: "invalid_request_error",
    retryable: false,
    hint: "Leave the named parameter out; this version does not offer it.",
  },
  trace_invalid: {
    http_status: 400,
    type: "invalid_request_error",
    retryable: false,
    hint: "Correct the named line of the trace; docs/simulate.md tells its columns.",
  },
  task_unsupported: {
    http_status: 400,
    type: "invalid_request_error",
    retryable: false,
    hint: "GET /v1/models names the task of each model; choose one that does this.",
  },
  context_length_exceeded: {
    http_status: 400,
    type: "invalid_request_error",
    retryable: false,
    hint: "Shorten the prompt or deploy the model with a larger context.",
  },
  invalid_api_key: {
    http_status: 401,
    type: "authentication_error",
    retryable: false,
    hint: "Send a valid key as 'Authorization: Bearer <key>'.",
  },
  priority_not_allowed: {
    http_status: 403,
    type: "permission_error",
    retryable: false,
    hint: "Ask for a lower priority, or have the key's bound raised (SLLM_GATEWAY_API_KEYS).",
  },
  route_not_found: {
    http_status: 404,
    type: "not_found_error",
    retryable: false,
    hint: "Check the path; the API starts with /v1.",
  },
  model_not_found: {
    http_status: 404,
    type: "not_found_error",
    retryable: false,
    hint: "List the deployed models with 'sllm ls' or GET /v1/models.",
  },
  adapter_not_found: {
    http_status: 404,
    type: "not_found_error",
    retryable: false,
    hint: "List a model's adapters with 'sllm adapter ls <model>' or GET /v1/models.",
  },
  not_found: {
    http_status: 404,
    type: "not_found_error",
    retryable: false,
    hint: "Check the id.",
  },
  method_not_allowed: {
    http_status: 405,
    type: "invalid_request_error",
    retryable: false,
    hint: "Use the method of the Allow header.",
  },
  model_exists: {
    http_status: 409,
    type: "conflict_error",
    retryable: false,
    hint: "Delete the model first ('sllm rm') or choose another name.",
  },
  adapter_exists: {
    http_status: 409,
    type: "conflict_error",
    retryable: false,
    hint: "Remove the adapter first ('sllm adapter rm'), replace it, or choose another name.",
  },
  adapter_mismatch: {
    http_status: 422,
    type: "invalid_request_error",
    retryable: false,
    hint: "An adapter fits only the model that it was trained for; see the message.",
  },
  state_conflict: {
    http_status: 409,
    type: "conflict_error",
    retryable: true,
    hint: "Something changed meanwhile; read the state and try again.",
  },
  stale_epoch: {
    http_status: 409,
    type: "conflict_error",
    retryable: false,
    hint: "Another owner took over; stop sending.",
  },
  stale_generation: {
    http_status: 409,
    type: "conflict_error",
    retryable: false,
    hint: "A newer owner continues this generation; read it where it runs now.",
  },
  idempotency_mismatch: {
    http_status: 409,
    type: "conflict_error",
    retryable: false,
    hint: "Take a new Idempotency-Key for another request, or send the first request again unchanged.",
  },
  instance_busy: {
    http_status: 409,
    type: "conflict_error",
    retryable: true,
    hint: "The instance is serving requests; wait until it is idle.",
  },
  payload_too_large: {
    http_status: 413,
    type: "invalid_request_error",
    retryable: false,
    hint: "Send a smaller body.",
  },
  unsupported_media_type: {
    http_status: 415,
    type: "invalid_request_error",
    retryable: false,
    hint: "Send 'Content-Type: application/json'.",
  },
  checkpoint_invalid: {
    http_status: 422,
    type: "invalid_request_error",
    retryable: false,
    hint: "The file is damaged or not what it says; convert it again from a good source.",
  },
  checkpoint_unsupported: {
    http_status: 422,
    type: "invalid_request_error",
    retryable: false,
    hint: "This model or format version is not supported; see the message.",
  },
  deployment_too_large: {
    http_status: 422,
    type: "invalid_request_error",
    retryable: false,
    hint: "Deploy with a smaller context or fewer slots, raise SLLM_WORKER_MEMORY_BYTES, or start a larger worker first.",
  },
  protocol_mismatch: {
    http_status: 422,
    type: "invalid_request_error",
    retryable: false,
    hint: "Gateway and worker speak different protocol versions; update the older one.",
  },
  too_many_waiting: {
    http_status: 429,
    type: "rate_limit_error",
    retryable: true,
    hint: "Too many requests of this API key are waiting; wait for answers before sending more.",
  },
  cancelled: {
    http_status: 499,
    type: "invalid_request_error",
    retryable: false,
    hint: "The client or an operator ended the request.",
  },
  internal: {
    http_status: 500,
    type: "server_error",
    retryable: true,
    hint: "A defect; the request id finds it in the logs.",
  },
  native_unavailable: {
    http_status: 500,
    type: "server_error",
    retryable: false,
    hint: "The native library cannot be used here; run 'npm run setup' and read the message.",
  },
  io_error: {
    http_status: 500,
    type: "server_error",
    retryable: true,
    hint: "Reading or writing failed; check the disk and the path in the message.",
  },
  permission_denied: {
    http_status: 503,
    type: "server_error",
    retryable: false,
    hint: "Let the user that runs the process read (for conversions also write) what the message names.",
  },
  store_missing: {
    http_status: 503,
    type: "server_error",
    retryable: true,
    hint: "Bring the folder 'checkpoints' of the data folder back (data_dir, SLLM_DATA_DIR), or mount its disk.",
  },
  store_read_only: {
    http_status: 503,
    type: "server_error",
    retryable: false,
    hint: "Mount the disk of the data folder for writing, or choose another folder (data_dir, SLLM_DATA_DIR).",
  },
  disk_full: {
    http_status: 507,
    type: "server_error",
    retryable: true,
    hint: "Free space on the disk, unpin or remove checkpoints, or raise SLLM_WORKER_DISK_BYTES.",
  },
  file_changed: {
    http_status: 503,
    type: "server_error",
    retryable: true,
    hint: "Something else writes to a file that must not change; the next try reads it anew.",
  },
  engine_failed: {
    http_status: 502,
    type: "server_error",
    retryable: true,
    hint: "The engine process ended; the message holds its last words.",
  },
  engine_killed: {
    http_status: 503,
    type: "server_error",
    retryable: true,
    hint: "Something outside, such as the kernel or an operator, ended the engine process; try again.",
  },
  engine_silent: {
    http_status: 503,
    type: "server_error",
    retryable: true,
    hint: "The engine stopped answering; its generations go on elsewhere where that is possible.",
  },
  generation_lost: {
    http_status: 502,
    type: "server_error",
    retryable: true,
    hint: "The generation cannot be continued from what is known; send the request again.",
  },
  model_load_failed: {
    http_status: 503,
    type: "server_error",
    retryable: true,
    hint: "The model could not be started; the message says why.",
  },
  model_loading: {
    http_status: 503,
    type: "server_error",
    retryable: true,
    hint: "The model is being started; try again after Retry-After.",
  },
  no_worker: {
    http_status: 503,
    type: "server_error",
    retryable: true,
    hint: "No worker is connected that could run the model; start one.",
  },
  checkpoint_unavailable: {
    http_status: 503,
    type: "server_error",
    retryable: true,
    hint: "No connected worker has the model's checkpoint; convert it on a worker's host.",
  },
  insufficient_memory: {
    http_status: 503,
    type: "server_error",
    retryable: true,
    hint: "The model does not fit into the memory that is free; stop others or use a smaller context.",
  },
  model_too_large: {
    http_status: 503,
    type: "server_error",
    retryable: false,
    hint: "Raise SLLM_WORKER_MEMORY_BYTES, deploy with a smaller context or fewer slots, or add a larger worker.",
  },
  arena_too_small: {
    http_status: 503,
    type: "server_error",
    retryable: false,
    hint: "Raise SLLM_WORKER_MEMORY_BYTES: the arena for weights in host memory is made of it.",
  },
  overloaded: {
    http_status: 503,
    type: "server_error",
    retryable: true,
    hint: "Too many requests are waiting; try again after Retry-After.",
  },
  worker_unavailable: {
    http_status: 503,
    type: "server_error",
    retryable: true,
    hint: "The worker does not answer; it is placed elsewhere or again on the next try.",
  },
  state_unavailable: {
    http_status: 503,
    type: "server_error",
    retryable: true,
    hint: "The database does not answer; check SLLM_GATEWAY_DATABASE_URL and the server.",
  },
  migrations_missing: {
    http_status: 503,
    type: "server_error",
    retryable: false,
    hint: "Run 'sllm migrate' as a database user who may create tables, or start one gateway with SLLM_GATEWAY_MIGRATIONS=apply.",
  },
  deadline_unreachable: {
    http_status: 503,
    type: "server_error",
    retryable: true,
    hint: "The request would be served after its deadline; allow more time (x-sllm-deadline-ms) or send it elsewhere.",
  },
  deadline_exceeded: {
    http_status: 504,
    type: "server_error",
    retryable: true,
    hint: "The request took longer than it was allowed to.",
  },
} as const satisfies Record<string, CodeRow>;

export type ErrorCode = keyof typeof codes;

export const errorCodes = Object.keys(codes) as [ErrorCode, ...ErrorCode[]];
