/**
 * Every bound of the system with its unit and its reason. A bound that is reached has an error code in
 * codes.ts; nothing grows without one of these. Longer than other files because all bounds stand in one place.
 */
export const limits = {
  /** Largest HTTP request body. 128k tokens of text are about 0.5 MB; 4 MiB leaves room for JSON escapes. */
  body_bytes: 4 * 1024 * 1024,
  /** Messages of one chat request: far beyond real conversations, small enough to validate at once. */
  chat_messages: 4096,
  /** Stop strings of one request. The OpenAI API allows 4; agents send more. */
  stop_strings: 16,
  /** Bytes of one stop string: the engine holds back this much text at most. */
  stop_bytes: 256,
  /** Answers to one request (`n`): each takes a slot of its own. */
  choices: 16,
  /** Likeliest tokens told beside each token, as in the OpenAI API. */
  top_logprobs: 20,
  /** Tokens that one request may favour or avoid. */
  logit_bias: 1_024,
  /** Tokens that a repetition penalty looks back on; the whole context is possible. */
  repeat_last_n: 1_048_576,
  /** Inputs of one request for embeddings, as in the OpenAI API, or documents of one ranking. */
  embedding_inputs: 2_048,
  /** Values of one embedding; the largest models have 8,192. */
  embedding_values: 65_536,
  /** Bytes of vectors in one message between engine and gateway: well below what a reader takes in one event. */
  vectors_message_bytes: 256 * 1024,
  /** Inputs of one request that are in the engine at once: enough to fill its batches, and others get their turn. */
  embedding_window: 64,
  /** Tools of one request. Agents come with some dozens; all of them are part of the prompt and of the grammar. */
  tools: 256,
  /** Tool calls of one message in a conversation. */
  tool_calls: 256,
  /** JSON text of a schema or of a tool's parameters: it becomes a grammar several times as long. */
  schema_bytes: 64 * 1024,
  /** Levels of a schema: what reads it recurses. */
  schema_depth: 32,
  /** Text of a grammar, read on the engine's way to the first token. */
  grammar_bytes: 64 * 1024,
  /** Parentheses inside each other in a grammar: what reads it recurses. */
  grammar_depth: 32,
  /** Times that a grammar or a schema may count; the engine library treats more as without end. */
  grammar_repetitions: 2_000,
  /** JSON text of a request's arguments to the chat template. */
  template_arguments_bytes: 16 * 1024,
  /** Output tokens of one request, whatever the model's context. */
  output_tokens: 1_048_576,
  /** Length of a model id, so that it fits a log line and an index. */
  model_id_chars: 128,
  /** Length of an adapter's name: it stands behind its model's in the id that requests name. */
  adapter_name_chars: 64,
  /** LoRA adapters of one deployed model: every gateway knows all of them, so that a request asks no database. */
  model_adapters: 1_024,
  /** Adapters that a refusal names: enough to see a slip of the pen. */
  named_adapters: 16,
  /** Adapters of an instance in memory at once, unless the worker's settings say otherwise. */
  resident_adapters: 8,
  /** Adapters that one engine can hold at all, as in the native library. */
  engine_adapters: 256,
  /** Length of an accepted x-request-id. */
  request_id_chars: 128,

  /** Time between SSE comments while nothing else is sent. Common proxies cut at 15 s and more. */
  sse_keep_alive_ms: 5_000,
  /** How long a streaming request waits for a refusal before its headers go out as 200. */
  stream_header_hold_ms: 150,
  /** How long a request may wait for a cold model before it is refused as retryable. */
  hold_ms: 300_000,
  /** Requests waiting for instances at one gateway. Beyond it: `overloaded`. */
  waiting_requests: 4_096,
  /** Of these for one model: a flood for one leaves room for others. */
  waiting_per_model: 2_048,
  /** Of these for one API key: a flood by one leaves room for others. */
  waiting_per_tenant: 2_048,
  /** Longest deadline that a request may name. */
  deadline_ms: 3_600_000,
  /** Characters of a tenant's name: it stands in log lines and settings. */
  tenant_chars: 64,
  /** How long running models may keep others from a device: some answers, far from a client's patience. */
  starvation_ms: 15_000,
  /** Expected wait for a slot above which more instances are started: another one takes memory from other models. */
  queue_delay_ms: 5_000,
  /** Instances of one model that settings may name; far above what a cluster has devices for. */
  model_instances: 1_024,
  /** Requests per instance that settings may name: all slots and the engine's queue. */
  model_concurrency: 4_096,
  /** Starts for one model that one turn of the scaling loop begins: what comes after sees what these have changed. */
  scaled_at_once: 8,
  /** Bytes of text a gateway keeps for a reader that is slower than the engine before it stops reading. */
  stream_buffer_bytes: 1024 * 1024,
  /** How often a request is placed again that was refused, or whose engine failed, before its first token. */
  placement_attempts: 4,

  /** The same for one that has begun, without a new token in between, or whose workers are away: half a minute. */
  failover_attempts: 16,
  /** Longest pause between two of these. */
  failover_pause_ms: 2_000,
  /** How often a gateway looks whether the owner of a generation has placed it. */
  owner_poll_ms: 200,
  /** How long a reader waits for a living owner to go on with what has lost its place. */
  owner_patience_ms: 30_000,
  /** At most between two batches of a resumable generation's output in the database, with their write below 250 ms. */
  token_batch_ms: 200,
  /** Characters of an idempotency key: a UUID with a name before it. */
  idempotency_key_chars: 255,

  /** Last values of a learned quantity that are kept: its median follows a change within half of them. */
  estimate_values: 16,
  /** Last errors of estimates that are kept: enough for a 90 % quantile. */
  estimate_errors: 64,
  /** How often gateways write what they learned and read what others did. */
  estimate_sync_ms: 5_000,
  /** Learned quantities that await their write; more are dropped while the database is away. */
  estimate_backlog: 10_000,
  /** Requests whose decisions a gateway remembers, to explain them: the last minutes of a busy one. */
  explained_requests: 1_000,
  /** Different decisions for one request that are remembered: the last ones. */
  explained_decisions: 8,
  /** Losing candidates that a decision names: enough to see why, not a line for each of 80,000 devices. */
  explained_candidates: 16,
  /** Running instances of one device that a plan of moves looks at: its search grows by a factor of three with each. */
  movable_instances: 6,

  /** Time between heartbeats of a worker. */
  heartbeat_ms: 1_000,
  /** Silence after which a worker counts as lost: three heartbeats and half a second of slack. */
  worker_lease_ms: 3_500,
  /**
   * Silence of a worker that has not reported since its gateways or the database were away: its last call may have to
   * time out first (`control_call_ms`), and it pauses between calls (2 s at most). Nothing that lives fails over.
   */
  worker_return_ms: 13_500,
  /** Silence of the gateway that leads after which another takes over: some missed renewals, noticed within seconds. */
  leader_lease_ms: 3_000,
  /** How often it renews: a third of the lease. */
  leader_renewal_ms: 1_000,
  /** How often a gateway reads the whole cluster, where changes are enough: for rows that are gone without a trace. */
  whole_read_ms: 60_000,
  /** Time between comments of a worker's stream while it has nothing else to say: whoever reads it knows that it lives. */
  stream_beat_ms: 1_000,
  /** Silence after which a worker's stream counts as broken: two beats, and some slack for a busy host. */
  stream_silence_ms: 2_500,
  /** How long a worker may take to answer a reader that comes back. */
  attach_ms: 1_000,
  /** From the last event of a worker's stream to the end of its body: they usually come together. */
  stream_end_ms: 1_000,
  /** One HTTP call between gateway and worker that is not a stream. */
  control_call_ms: 10_000,
  /** How long rows of generations gather before they are written together: past the first token of a warm request. */
  record_gather_ms: 50,
  /** Rows of generations in one statement: a dozen parameters each, and still milliseconds. */
  record_batch: 64,
  /** Message of an error kept in a row: an engine's last words fit, its whole log does not. */
  error_message_chars: 4_096,
  /** One call of the database. Statements take milliseconds; beyond this it counts as not answering. */
  database_call_ms: 10_000,
  /** How long ended requests, ended instances and events are kept: a week, so that Monday can be asked about Tuesday. */
  retention_ms: 7 * 24 * 60 * 60 * 1000,
  /** How long the output of an ended request that may be read again is kept: a client's break, and little disk. */
  replay_ms: 600_000,
  /** Pause between two removals of rows that are older. */
  retention_pause_ms: 10_000,
  /** Rows of a kind that one removal takes: a short transaction. When more may be left the next one follows at once. */
  retention_rows: 2_000,
  /** Idle time after which an instance without requests is stopped, unless the model says otherwise. */
  keep_alive_ms: 300_000,
  /** Further idle time for which a parked instance keeps its process: it costs little and its return is quick. */
  park_ms: 600_000,
  /** Pause between two runs of the reconcile loop. */
  reconcile_ms: 250,
  /** How long a gateway that stops lets streams go on. Supervisors kill after 15 s and more. */
  drain_ms: 10_000,
  /** After its last reader left, a generation goes on, or its log is kept, so long at the worker unless it says more. */
  orphan_grace_ms: 5_000,
  /** Longest time that a request may ask to be kept for its client's return; an hour of a closed laptop. */
  resume_ms: 3_600_000,
  /**
   * Bytes of one generation's events that a worker or a gateway keeps for readers and for a move; without
   * log-probabilities no context has as many. The oldest beyond them are forgotten.
   */
  generation_log_bytes: 16 * 1024 * 1024,
  /** Bytes of the logs of ended generations that a worker keeps for late readers, all together. */
  ended_logs_bytes: 64 * 1024 * 1024,
  /** Workers that a generation has run on: the path of its tokens, and far more moves than any has. */
  generation_hops: 1_024,

  /** Tokens that may be missing at a destination when a generation is handed over to it. */
  move_gap_tokens: 1_024,
  /** Rounds of one move: each takes at least a token's time. */
  move_rounds: 1_000,
  /** A round that a source waits for in one call; then it asks again, so that no proxy takes the call for dead. */
  arrival_wait_ms: 10_000,
  /** Bytes of the KV cache that go from worker to worker in one call, and through an engine between two steps. */
  kv_part_bytes: 4 * 1024 * 1024,
  /** A generation on its way whose source says nothing so long is let go by its destination. */
  arrival_idle_ms: 30_000,
  /** How long a source tries to hand a generation over before it says that it does not know. */
  hand_over_ms: 2_000,
  /** Pause between two tries, and between its later questions. */
  hand_over_pause_ms: 200,
  /** Tokens missing at a hand-over where the settings name no other number: what a source makes during a round. */
  move_gap: 2,
  /** Rounds of a move where the settings name no other number. The first two or three usually do. */
  move_rounds_usual: 32,
  /** Tokens that may be missing at a hand-over when the rounds have run out: one step of an engine computes them. */
  move_last_gap_tokens: 16,
  /** Time for a worker's streams to leave. Supervisors kill after 15 s and more. */
  worker_drain_ms: 10_000,
  /** How often a worker that drains looks whether anything still runs. */
  drain_poll_ms: 100,
  /** Moves in one answer of the admin API. */
  listed_migrations: 1_000,
  /** How often the row of a move follows its rounds: well within `move_silence_ms`. */
  move_note_ms: 1_000,
  /** A move whose row is silent so long has lost its gateway: another one ends it. */
  move_silence_ms: 6_000,
  /** Streams of one instance that move at once: each is computed anew, so more would only be slower together. */
  moves_at_once: 4,
  /** Rounds of failed moves after which an instance is left as it is. */
  move_attempts: 3,
  /** Generations on their way to one worker: each may wait for a slot of its engine. */
  arrivals: 1_024,

  /** Parallel sequences of one instance. */
  slots: 256,
  /** Requests waiting inside one engine beyond its slots. */
  engine_queue: 1_024,
  /** Context of one sequence. */
  context_tokens: 1_048_576,
  /** Tokens of one step, prompts and answers together. */
  batch_tokens: 512,
  /** Tokens of one step for prompts while answers are generated, at most, where the settings name no other number. */
  prefill_tokens: 256,
  /** A call to a worker: a client's largest body, resumed tokens, and what was told of them, as JSON. */
  worker_body_bytes: 80 * 1024 * 1024,
  /** Fingerprint of an instance: digest of its checkpoint and what its engine says of itself. */
  fingerprint_chars: 512,
  /** Names of an engine's devices with their shares: 16 devices, 64 characters each. */
  device_list_chars: 1_024,
  /** Instances of one worker; far above what memory admits. */
  instances: 256,
  /** Ended instances in one answer of the admin API: enough to see why a model keeps failing. */
  listed_instances: 1_000,
  /** How often an engine process says that it lives, and what it is at. */
  engine_beat_ms: 1_000,
  /** Silence of an engine with requests after which these are ended, to go on elsewhere: two beats and some slack. */
  engine_silence_ms: 2_500,
  /** Time for an engine process to leave by itself before it is killed. */
  engine_exit_ms: 2_000,
  /** Time for an engine process to say hello. Starting Bun and linking the libraries takes 0.1-1 s. */
  engine_hello_ms: 30_000,
  /** Time for an idle engine to park. Unmapping 100 GB of small pages takes a second. */
  engine_park_ms: 10_000,
  /** Skeletons of likely models in reserve: each holds a vocabulary and a process. */
  standby_skeletons: 16,
  /** Engine processes in reserve: more loads than this rarely begin within the second in which one is replaced. */
  standby_engines: 16,
  /** Quiet time after a load before the reserve is filled: the first answer has the processor for itself. */
  standby_refill_ms: 1_000,
  /** Pause after an engine process in reserve ended by itself; doubles with each in a row. */
  standby_back_off_ms: 500,
  /** Longest of these pauses: soon enough after a broken set-up was mended, rare enough for the log. */
  standby_back_off_longest_ms: 30_000,
  /** One line of the protocol between worker and engine process. */
  engine_line_bytes: 16 * 1024 * 1024,
  /** Memory of an engine process beside model and compute buffers: runtime, libraries, vocabulary. */
  engine_overhead_bytes: 128 * 1024 * 1024,
  /** Last lines of an engine's own log that are kept to explain a failure. */
  engine_log_lines: 50,

  /** Chunk of weights.bin: large enough for full disk speed, small enough to pipeline. */
  chunk_bytes: 16 * 1024 * 1024,
  /** Chunks that weights without room in host memory pass through: as many as keep disk and device busy. */
  stream_chunks: 16,
  /** Alignment of tensors in weights.bin: what CUDA wants of device pointers, a multiple of the CPU's. */
  tensor_align_bytes: 128,
  /** Alignment of chunks and of the file's end: O_DIRECT on any common device. */
  file_align_bytes: 4_096,
  /** Header of a GGUF file (metadata, vocabulary, tensor infos). A 262k vocabulary needs about 16 MB. */
  gguf_header_bytes: 512 * 1024 * 1024,
  /** Tensors of one checkpoint; the largest mixture-of-experts files have some 20,000. */
  tensors: 131_072,
  /** Metadata pairs of one GGUF file. */
  gguf_pairs: 65_536,
  /** Elements of one metadata array: vocabularies reach 300k, merges 600k. */
  gguf_array: 8_388_608,
  /** One string in a GGUF header, chat templates included. */
  gguf_string_bytes: 16 * 1024 * 1024,
  /** Nesting of metadata arrays. */
  gguf_array_depth: 4,
  /** Alignment that a GGUF file may ask for; files use 32, some 64 KiB pages. */
  gguf_alignment_bytes: 65_536,
  /** Time for the engine library to lay a model out. The largest takes seconds; a hostile one may never end. */
  layout_plan_ms: 120_000,
  /** The answer of the layout process: 131,072 tensor names of up to 63 bytes, escaped. */
  layout_reply_bytes: 64 * 1024 * 1024,
  /** Chunks that a conversion reads, digests and writes at once: one buffer of chunk_bytes each. */
  convert_chunks_in_flight: 4,
  /** Space on the store's disk that a conversion leaves: manifest, folders and a margin. */
  convert_spare_bytes: 64 * 1024 * 1024,
  /** Silence after which a temporary folder of another host on a shared disk counts as abandoned. */
  incoming_abandoned_ms: 24 * 60 * 60 * 1000,
  /** Damaged places that are listed of one checkpoint: enough to see a pattern, not a line for each of 100,000 chunks. */
  verify_damages: 100,
  /** Unusable checkpoints that a worker names in one report: enough for people to see what is wrong. */
  store_problems: 100,
  /** Loads that read from one disk at once; more would only slow each other down. Others wait in order. */
  disk_loads: 2,
  /** How often a worker writes down what is deployed although nothing changed: newer checkpoints are not evicted. */
  deployed_mark_ms: 60_000,
  /** Traces of loads that a worker keeps in memory and shows. */
  kept_loads: 200,
  /** One file of load traces on disk (there are two: current and previous), some 2,000 loads. */
  load_log_bytes: 4 * 1024 * 1024,
  /** Parts of a split GGUF file. */
  gguf_splits: 1_024,
  /** manifest.json: 131,072 tensors at about 150 bytes and the chunk digests of 2 TiB. */
  manifest_bytes: 64 * 1024 * 1024,
  /** Hosts of a simulated cluster: ten times what one database of workers serves. */
  simulated_hosts: 10_000,
  /** Models of a simulated cluster. */
  simulated_models: 10_000,
  /** Sizes and rates in a simulation; sums of them stay exact numbers. */
  simulated_bytes: 1e15,
  /** Times in a simulation: eleven days. */
  simulated_ms: 1e9,
  /** Requests of one simulation: columns of some hundred megabytes. */
  simulated_requests: 10_000_000,
  /** One line of a trace; a function's day has a pair for every minute. */
  trace_line_chars: 65_536,
  /** Bytes of weights of one checkpoint. */
  weights_bytes: 4 * 1024 ** 4,
} as const;
