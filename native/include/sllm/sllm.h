/*
 * sllm.h - the one public header of libsllm: tiered loading of checkpoints and inference on them. Longer than other
 * files because callers want the whole border in one place.
 *
 * Conventions
 *  1. Handles are opaque. `*_create` fills an out pointer; `*_destroy` accepts NULL and waits for the threads of the
 *     handle. No handle may be used after its destroy began.
 *  2. Every fallible function returns sllm_status (0 is success, negative values fail, values never change their
 *     meaning). The text of a failure belongs to the calling thread until its next call: copy it with
 *     sllm_last_error(). Asynchronous failures carry their text in the event.
 *  3. Parameter and result structs begin with struct_size, set by the caller to sizeof its version; fields beyond it
 *     take their defaults (0). Fields are fixed-width numbers and pointers; nothing is passed by value but scalars.
 *  4. Pointers in parameters are borrowed for the call: the library copies what it keeps. Text is UTF-8 with a length;
 *     where a NUL-terminated path is wanted the comment says so.
 *  5. Work is submitted, waited for and drained. The library never calls back and throws nothing across this border.
 *  6. Thread notes: [any] any thread at any time; [serial] one call at a time per handle; [blocks] may take long.
 *  7. Struct members are laid out without hidden padding; sizes are asserted in abi/layout.cc and mirrored by the
 *     language bindings.
 */
#ifndef SLLM_SLLM_H
#define SLLM_SLLM_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define SLLM_API __attribute__((visibility("default")))
#else
#define SLLM_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Major in the upper, minor in the lower 16 bits. Major: a function or field changed or left; minor: something came. */
#define SLLM_ABI_VERSION 0x00010005u

typedef int32_t sllm_status;

enum {
    SLLM_OK = 0,
    SLLM_E_INVALID_ARGUMENT = -1,    /* a parameter is out of its range; nothing happened */
    SLLM_E_NOT_FOUND = -2,           /* no such file, request or load */
    SLLM_E_BUFFER_TOO_SMALL = -3,    /* *needed tells the size; nothing was consumed */
    SLLM_E_OVERLOADED = -4,          /* a bounded queue is full; try again later */
    SLLM_E_CLOSED = -5,              /* the handle is shutting down */
    SLLM_E_OUT_OF_MEMORY = -6,
    SLLM_E_WRONG_STATE = -7,         /* not now: the text says what is in the way. Since 1.2 */
    SLLM_E_IO = -10,                 /* the system refused to read, write or map; text holds path and errno */
    SLLM_E_CORRUPT = -11,            /* bytes differ from their digest or cannot be what they should be */
    SLLM_E_LIBRARY_MISSING = -20,    /* an engine library or a CPU variant of it cannot be loaded */
    SLLM_E_LIBRARY_VERSION = -21,    /* the engine library is not the version this library was built for */
    SLLM_E_MODEL_UNSUPPORTED = -22,  /* the engine library refuses the model; text holds its last words */
    SLLM_E_CONTEXT_OVERFLOW = -30,   /* the prompt does not fit the context */
    SLLM_E_CANCELLED = -31,
    SLLM_E_ENGINE = -32,             /* the engine failed while computing; it must be destroyed */
    SLLM_E_INTERNAL = -99
};

/* ABI version of the loaded library. Call first and compare the major half with SLLM_ABI_VERSION. [any] */
SLLM_API uint32_t sllm_abi_version(void);

/* Name of a status such as "SLLM_E_IO"; "SLLM_E_UNKNOWN" for others. Static text. [any] */
SLLM_API const char *sllm_status_name(sllm_status status);

/* Copies the calling thread's last failure text, NUL-terminated and cut to cap bytes. Returns its full length without
 * the NUL. out may be NULL when cap is 0. [any] */
SLLM_API uint64_t sllm_last_error(char *out, uint64_t cap);

/* XXH3 (64 bits, seed 0) of n bytes: the fast chunk digest of checkpoints. data may be NULL when n is 0. [any] */
SLLM_API uint64_t sllm_digest_xxh3(const void *data, uint64_t n);

/* Private writable memory of this process may grow by so many bytes from now on; the system refuses more, whoever in
 * the process asks: a function here then fails with OUT_OF_MEMORY, or the engine library ends the process. Shared
 * memory, a host copy above all, counts for nothing. Another call sets another limit. IO where the system has none.
 * [any] Since 1.3 */
SLLM_API sllm_status sllm_limit_memory(uint64_t bytes);

/* ---- Checkpoint layout ------------------------------------------------------------------------------------------ */

/*
 * Builds the model of a GGUF header once without its weights and writes the order in which the engine lays its tensors
 * out, as JSON {"tensors":["name",...]}: the canonical order of weights.bin. header_path (NUL-terminated) names a file
 * that starts with a complete GGUF header and is at least as long as header and data together (may be sparse).
 * library_dir (NUL-terminated) holds the engine libraries.
 * A hostile header can end the process inside the engine library: call it in a process of its own.
 * Errors: NOT_FOUND, CORRUPT, MODEL_UNSUPPORTED, LIBRARY_*, BUFFER_TOO_SMALL (*needed is set). [serial] [blocks]
 */
SLLM_API sllm_status sllm_layout_plan(const char *library_dir, const char *header_path, char *out, uint64_t cap,
                                      uint64_t *needed);

/* ---- Store: checkpoints from disk into host memory --------------------------------------------------------------- */

/* Reads checkpoints into its arena of host memory. Owns a thread per volume that keeps its reads in flight, a few that
 * digest and fault memory in, and one that pre-faults. */
typedef struct sllm_store sllm_store;

typedef struct sllm_store_params {
    uint32_t struct_size;
    uint32_t reader_threads; /* reads of one volume in flight at most, which without io_uring is as many threads;
                                0: what suits the volume */
    uint64_t arena_bytes;    /* host memory that copies may use at most, rounded up to 16 MiB; 0: the machine's memory.
                                Since 1.1 */
    uint64_t prefault_bytes; /* of it, kept faulted in from the start, in the background; copies that find such memory
                                are read without the cost of its first touch. Since 1.1 */
    uint32_t huge_pages;     /* 0: where the system can; 1: never. Since 1.2 */
    uint32_t read_method;    /* 0: io_uring where the system has and allows it; 1: threads. Since 1.2 */
    const char *state_dir;   /* NUL-terminated; an existing folder that keeps what was found out about volumes. NULL:
                                nothing does. Since 1.2 */
    uint64_t read_bytes_per_second; /* read from a volume at most; 0: as many as can be. With a bound nothing is found
                                       out about volumes. Since 1.4 */
} sllm_store_params;

typedef struct sllm_arena_status {
    uint32_t struct_size;
    uint32_t prefaulting;    /* 1 until the first pre-fault is done */
    uint64_t arena_bytes;
    uint64_t used_bytes;     /* in whole chunks of 16 MiB */
    uint64_t faulted_bytes;  /* with memory behind them, used ones included */
    uint64_t prefault_bytes;
    double prefault_ms;      /* that the first pre-fault took; so far, while it goes on */
    uint64_t huge_bytes;     /* of faulted_bytes, in huge pages. Since 1.2 */
} sllm_arena_status;

/*
 * A file system that checkpoints are read from, as a link with a queue. What suits it (method, blocks, bytes in flight,
 * the page cache or not) is found out by a probe of less than half a second, once, when a load of 256 MiB or more has
 * ended and nothing was to do for two seconds; not where the parameters name reader_threads or read_method. Since 1.2.
 */
typedef struct sllm_volume_status {
    uint32_t struct_size;
    uint32_t read_method;      /* 0 io_uring, 1 threads */
    uint64_t file_system;      /* its number, the same as long as it is mounted */
    uint64_t block_bytes;      /* of one read */
    uint64_t in_flight_bytes;  /* at most */
    uint64_t queued_bytes;     /* of loads in progress, not read yet */
    uint32_t queued_loads;
    uint32_t direct_io;        /* 1: around the page cache, where the file system can */
    double bytes_per_second;   /* as the probe or the last large load measured it; 0: not yet */
    uint64_t registered_bytes; /* of the arena, with io_uring; the limit of locked memory bounds them */
    uint32_t probed;           /* 1: found by a probe, in this run or an earlier one */
    uint32_t reserved;
} sllm_volume_status;

/*
 * A host copy is a small shared memory file that tells where in the arena the weights lie and how far they have come.
 * Other processes of the same user open it as /proc/<pid>/fd/<fd>, and through it the arena, read-only.
 */
typedef struct sllm_load_params {
    uint32_t struct_size;
    uint32_t stream_chunks;        /* 0: all weights stay. Otherwise they pass through so many chunks of 16 MiB, each of
                                      which is filled again when the one engine that is given the copy, at once and
                                      with devices, is done with it. Since 1.2, 0 before */
    const char *weights_path;      /* NUL-terminated; weights.bin */
    uint64_t weights_bytes;        /* size of weights.bin, a multiple of 4096 */
    uint64_t chunk_bytes;          /* a multiple of 4096 */
    const uint64_t *chunk_digests; /* XXH3 of every chunk, n_chunks of them */
    uint64_t n_chunks;
    uint32_t lanes;                /* stretches of the weights of equal length that are read side by side, one for each
                                      device that a part of them goes to; 0 or 1: in the order of the file, as all that
                                      streams. Since 1.3 */
    uint32_t reserved;
} sllm_load_params;

typedef struct sllm_load_status {
    uint32_t struct_size;
    int32_t state;          /* 0 loading, 1 ready, or a negative sllm_status: failed */
    int32_t fd;             /* file descriptor of the host copy, owned by the store until sllm_store_release */
    uint32_t direct_io;     /* 1 when O_DIRECT was used for (most of) the reads */
    uint64_t bytes_done;    /* read and verified */
    uint64_t bytes_total;
    double read_ms;         /* from the first read to the last; so far, while loading */
    char message[512];      /* why it failed, NUL-terminated */
    /* Since 1.2: when the stages were reached, from the call of sllm_store_load, 0 before; and what they cost. */
    double first_read_ms;     /* the first read was begun */
    double first_verified_ms; /* the first chunk was there and verified */
    double last_read_ms;      /* the last byte was there */
    double ended_ms;          /* the last chunk was verified, or the load failed */
    double memory_wait_ms;    /* nothing was being read because memory was not faulted in yet */
    double fault_ms;          /* processor time to fault memory in */
    double digest_ms;         /* processor time of the digests */
    uint64_t direct_bytes;    /* read around the page cache */
    uint64_t cached_bytes;    /* copied from the page cache, which had them */
    uint64_t buffered_bytes;  /* read through the page cache, which had not all of them */
    uint32_t retries;         /* reads that came back short or interrupted and were continued */
    uint32_t rereads;         /* chunks that were read twice because their digest differed */
} sllm_load_status;

/* Returns at once; the arena is usable while it is pre-faulted. Errors: INVALID_ARGUMENT, OUT_OF_MEMORY, IO. [any] */
SLLM_API sllm_status sllm_store_create(const sllm_store_params *params, sllm_store **out);

/* Stops all loads (they fail as CLOSED), joins the threads, closes all host copies and the arena. [serial] [blocks] */
SLLM_API void sllm_store_destroy(sllm_store *store);

/* Begins to read a checkpoint into a new host copy and returns its number (> 0) at once. O_DIRECT where the file system
 * has it, buffered otherwise and for chunks that are in the page cache; every chunk is checked against its digest, a
 * wrong one is read once more and then fails the load with CORRUPT. Errors: INVALID_ARGUMENT, NOT_FOUND, IO,
 * OUT_OF_MEMORY when the arena has not enough free chunks (text: what is needed, in use and there). [any] */
SLLM_API sllm_status sllm_store_load(sllm_store *store, const sllm_load_params *params, uint64_t *load);

/* State of a load or host copy. Errors: NOT_FOUND. [any] */
SLLM_API sllm_status sllm_store_status(sllm_store *store, uint64_t load, sllm_load_status *out);

/* Waits until any load of the store made progress since the last wait, or for timeout_us. [any] [blocks] */
SLLM_API sllm_status sllm_store_wait(sllm_store *store, uint64_t timeout_us);

/* Forgets a host copy: a load in progress is stopped, the descriptor is closed, its memory serves other loads. Call it
 * only when every engine that was given the copy has been destroyed or parked without keeping it, or its process has
 * ended: an engine would compute on other bytes without noticing. Errors: NOT_FOUND. [any] */
SLLM_API sllm_status sllm_store_release(sllm_store *store, uint64_t load);

/* What the arena holds. Since 1.1. [any] */
SLLM_API sllm_status sllm_store_arena(sllm_store *store, sllm_arena_status *out);

/* The volume that path (NUL-terminated, a file or folder) lies on. Loads of one volume are served in the order they
 * came; the oldest two that have something to read share it three to one. Errors: NOT_FOUND, IO. Since 1.2. [any] */
SLLM_API sllm_status sllm_store_volume(sllm_store *store, const char *path, sllm_volume_status *out);

/* ---- Engine: one model instance ---------------------------------------------------------------------------------- */

/* One model instance with its slots. Owns one compute thread (and the pool of the engine library below it). */
typedef struct sllm_engine sllm_engine;

enum {
    SLLM_ENGINE_LLAMA = 0, /* a GGUF model through libllama */
    SLLM_ENGINE_ECHO = 1   /* answers with the prompt's own words, no model: for tests of the path */
};

typedef struct sllm_engine_params {
    uint32_t struct_size;
    uint32_t kind;           /* SLLM_ENGINE_* */
    const char *library_dir; /* NUL-terminated; folder of the engine libraries. LLAMA only */
    const char *header_path; /* NUL-terminated; header.gguf of the checkpoint. LLAMA only */
    const char *weights_path;/* NUL-terminated; the host copy (see sllm_load_params). LLAMA only */
    uint64_t weights_bytes;  /* LLAMA only */
    uint32_t context_tokens; /* per slot */
    uint32_t slots;
    uint32_t batch_tokens;   /* tokens of one step at most; 0: 512 */
    uint32_t threads;        /* 0: all processors but one; more threads than idle processors are much slower */
    uint32_t queue;          /* requests that may wait beyond the slots; 0: 1024 */
    uint32_t echo_token_us;  /* ECHO only: time per token */
    const char *devices;     /* NUL-terminated; NULL or "": the CPU. Otherwise names of sllm_devices that hold weights,
                                KV cache and computation, all layers, shared out in order: "CUDA0", "CUDA0,CUDA1" or,
                                with shares of the bytes "CUDA0=2,CUDA1=1". LLAMA only. Since 1.2 */
    uint32_t prefill_tokens; /* of a step for prompts while any answer is being generated, at most: a step takes fewer
                                where it would become four times as long as one of answers alone; 0: 256. Since 1.3 */
    uint32_t kv_tokens;      /* tokens of all slots together that the KV cache holds, at least context_tokens; 0: slots
                                times context_tokens. When it runs short the youngest request waits or is put back and
                                computed again later; its events just go on. Since 1.3 */
    uint32_t deterministic;  /* 1: an answer depends on its request alone, to the last bit of the logits: not on what
                                else runs, nor on where it was resumed. Slower; needs kv_tokens 0 and a CPU; models with
                                a recurrent state, a sliding window or experts are refused. LLAMA only. Since 1.3 */
    uint32_t repacked;       /* 1: matrices in the layout that the library computes on fastest, in memory of the
                                engine's own: prompts and batches of quantised models are faster, the start is slower
                                and as much memory again is used. Not with deterministic; ignored with devices. LLAMA
                                only. Since 1.3 */
} sllm_engine_params;

/* How a model makes one vector of a sequence. NONE: it does not, its engine generates. RANK: scores of a query with a
 * document, the first is the relevance. Of the others the vectors have length 1. Since 1.3. */
enum {
    SLLM_POOLING_NONE = 0,
    SLLM_POOLING_MEAN = 1,
    SLLM_POOLING_CLS = 2,
    SLLM_POOLING_LAST = 3,
    SLLM_POOLING_RANK = 4
};

typedef struct sllm_engine_info {
    uint32_t struct_size;
    uint32_t vocabulary_tokens;
    uint32_t context_tokens; /* per slot */
    uint32_t slots;
    double model_build_ms;   /* model skeleton, vocabulary and context */
    double weights_wait_ms;  /* the last sllm_engine_attach: mapping, and waiting for the last byte; 0 before */
    uint64_t uploaded_bytes; /* the last attach, to devices; 0 on a CPU. Since 1.2 */
    double upload_ms;        /* until the last byte was on its device. Since 1.2 */
    double upload_wait_ms;   /* of it, waiting for bytes of the host copy. Since 1.2 */
    char fingerprint[256];   /* NUL-terminated. Engines of one checkpoint with equal fingerprints give equal answers,
                                and continue each other's; empty outside the deterministic mode. Since 1.3 */
    uint32_t pooling;          /* SLLM_POOLING_*: of the model, which decides what the engine does. Since 1.3 */
    uint32_t embedding_values; /* of the vector of a sequence, 0 where the engine generates. Since 1.3 */
    uint64_t kv_token_bytes;   /* of the KV cache for each token; 0: it cannot be moved. Since 1.5 */
    char kv_fingerprint[256];  /* NUL-terminated. Engines of one checkpoint with equal ones take each other's rows of
                                  the KV cache; empty where it cannot be moved. Since 1.5 */
} sllm_engine_info;

/* What an engine is at, and what it has done since it was made. Since 1.3 */
typedef struct sllm_engine_activity {
    uint32_t struct_size;
    uint32_t slots;
    uint32_t running;          /* requests in slots */
    uint32_t waiting;          /* without one, those that were put back included */
    uint64_t kv_tokens;        /* that the KV cache holds */
    uint64_t kv_used_tokens;   /* of them, in use or kept for requests that begin alike */
    uint64_t steps;
    uint64_t computed_tokens;  /* in all steps: of prompts, of answers, and those computed again */
    uint64_t progress;         /* grows at every step, and within one where that can be told (on CPUs): while it stands
                                  still and computing is 1, the engine is stuck in one operation */
    uint32_t last_step_tokens;
    uint32_t computing;        /* 1: inside a step */
} sllm_engine_activity;

/* The devices beside the CPU that the engine libraries of a folder find on this machine, as JSON
 * {"devices":[{"name","description","backend","memory_bytes","free_bytes"},...]}; an empty list without a driver. It
 * opens the devices' driver: call it in a process of its own where that memory should not stay taken. Since 1.2.
 * Errors: INVALID_ARGUMENT, LIBRARY_*, BUFFER_TOO_SMALL. [any] [blocks] */
SLLM_API sllm_status sllm_devices(const char *library_dir, char *out, uint64_t cap, uint64_t *needed);

/* Pays ahead for what no model decides: loads the engine libraries of the folder (library_dir, NUL-terminated), checks
 * them and loads the processor's variant of the CPU backend. Done once per process and then remembered; without it the
 * first sllm_engine_create does the same. Since 1.1. Errors: INVALID_ARGUMENT, LIBRARY_*. [any] [blocks] */
SLLM_API sllm_status sllm_engine_warm(const char *library_dir);

/* sllm_engine_build and sllm_engine_attach in one: the model is built while its weights may still be arriving. Errors:
 * those of both. [any] [blocks] */
SLLM_API sllm_status sllm_engine_create(const sllm_engine_params *params, sllm_engine **out);

/* Builds an engine without weights, its skeleton: model, vocabulary and context, at addresses that stay. It renders and
 * tokenises; requests are refused as WRONG_STATE until sllm_engine_attach. params->weights_path is not read. Since 1.2.
 * Errors: INVALID_ARGUMENT, NOT_FOUND, IO, CORRUPT, LIBRARY_*, MODEL_UNSUPPORTED, OUT_OF_MEMORY. [any] [blocks] */
SLLM_API sllm_status sllm_engine_build(const sllm_engine_params *params, sllm_engine **out);

/* Brings the weights of a host copy (weights_path, NUL-terminated; ECHO takes NULL) to a skeleton or a parked engine:
 * maps them in place, no byte is copied, waits for the last of them and fills the page tables, so that the next step
 * costs what every later one does. At once when the engine has kept this very copy. When the copy's load fails, so does
 * this, with its status and text; the engine then has no weights and can be given others. Since 1.2.
 * Errors: INVALID_ARGUMENT, NOT_FOUND, IO, CORRUPT, OUT_OF_MEMORY, ENGINE; WRONG_STATE: it has weights. Not together
 * with park or destroy. [any] [blocks] */
SLLM_API sllm_status sllm_engine_attach(sllm_engine *engine, const char *weights_path);

/* Parks an engine that has no unfinished request: its KV cache and compute buffers give their memory back, what was
 * built stays at its addresses. keep_weights 1: the pages of the host copy, which are not this engine's memory, stay
 * mapped for a quick sllm_engine_attach; the copy must not be released meanwhile. keep_weights 0: they are let go, also
 * those that an earlier park has kept. Weights that had to be copied are always let go. Since 1.2.
 * Errors: INVALID_ARGUMENT, IO, ENGINE; WRONG_STATE: requests are unfinished. Not together with attach or destroy.
 * [any] [blocks] */
SLLM_API sllm_status sllm_engine_park(sllm_engine *engine, uint8_t keep_weights);

/* Ends all requests, joins the thread, unmaps the weights. [serial] [blocks] */
SLLM_API void sllm_engine_destroy(sllm_engine *engine);

SLLM_API sllm_status sllm_engine_info_get(sllm_engine *engine, sllm_engine_info *out);

/* Never waits for a step to end. [any] Since 1.3 */
SLLM_API sllm_status sllm_engine_activity_get(sllm_engine *engine, sllm_engine_activity *out);

/* Memory that an engine takes on each of its devices, as JSON {"devices":[{"name","weights_bytes","context_bytes",
 * "compute_bytes"},...]}; an empty list on a CPU. Since 1.2. Errors: BUFFER_TOO_SMALL. [any] */
SLLM_API sllm_status sllm_engine_device_memory(sllm_engine *engine, char *out, uint64_t cap, uint64_t *needed);

/* Renders a conversation with the model's own chat template, ready for an answer. messages: JSON array of
 * {"role","content"}. Errors: INVALID_ARGUMENT (text says what the template refused), BUFFER_TOO_SMALL. [any] */
SLLM_API sllm_status sllm_engine_render_chat(sllm_engine *engine, const char *messages, uint64_t messages_bytes,
                                             char *out, uint64_t cap, uint64_t *needed);

/* One conversation: its prompt, what its answer must look like, and the reading of the answer. Since 1.2. */
typedef struct sllm_chat sllm_chat;

/* Renders a conversation with the model's own chat template, ready for an answer. request: JSON object {"messages":
 * [{"role", "content": text or null, "reasoning_content"?, "tool_calls"?: [{"id", "name", "arguments": JSON text}],
 * "tool_call_id"?, "name"?}], "tools"?: [{"name", "description"?, "parameters": JSON schema}], "tool_choice"?: "auto",
 * "required" or "none", "parallel_tool_calls"?: false, "json_schema"?: what the answer's content must be,
 * "template_arguments"?: variables of the template}. Close it before the engine is destroyed. Since 1.2.
 * Errors: INVALID_ARGUMENT (text says what the template refused, or why a schema cannot become a grammar). [any] */
SLLM_API sllm_status sllm_chat_open(sllm_engine *engine, const char *request, uint64_t request_bytes, sllm_chat **out);

/* Frees the conversation. Since 1.2. [serial] */
SLLM_API void sllm_chat_close(sllm_chat *chat);

/* What to ask the engine for, as JSON: {"prompt": text, "constraint": that of sllm_request or null, "stops": further
 * stop strings, "plain": true when the answer's text is the message's content, so that it need not be fed}. Since 1.2.
 * Errors: BUFFER_TOO_SMALL. [serial] */
SLLM_API sllm_status sllm_chat_describe(sllm_chat *chat, char *out, uint64_t cap, uint64_t *needed);

/* More of the answer's text, in order; last: nothing follows. Text of an earlier run that this one goes on from is fed
 * first. Since 1.2. Errors: INVALID_ARGUMENT beyond 16 MiB. [serial] */
SLLM_API sllm_status sllm_chat_feed(sllm_chat *chat, const char *text, uint64_t text_bytes, uint8_t last);

/* What the message has gained since the last take, as JSON: {"content"?, "reasoning_content"?, "tool_calls"?:
 * [{"index", "name"? (once, whole), "arguments"? (more of its JSON text)}]}. Since 1.2. Errors: BUFFER_TOO_SMALL.
 * [serial] */
SLLM_API sllm_status sllm_chat_take(sllm_chat *chat, char *out, uint64_t cap, uint64_t *needed);

/* Tokens of a text. add_special: begin-of-text and the like as the model wants; parse_special: read control tokens that
 * stand in the text. *n is the count, also with BUFFER_TOO_SMALL. [any] */
SLLM_API sllm_status sllm_engine_tokenize(sllm_engine *engine, const char *text, uint64_t text_bytes,
                                          uint8_t add_special, uint8_t parse_special, int32_t *out, uint64_t cap,
                                          uint64_t *n);

/* Tokens of a query and a document as a model with SLLM_POOLING_RANK reads them; *n is the count, also with
 * BUFFER_TOO_SMALL. Since 1.3. Errors: INVALID_ARGUMENT where the model does not rank, BUFFER_TOO_SMALL. [any] */
SLLM_API sllm_status sllm_engine_tokenize_pair(sllm_engine *engine, const char *query, uint64_t query_bytes,
                                               const char *document, uint64_t document_bytes, int32_t *out,
                                               uint64_t cap, uint64_t *n);

typedef struct sllm_text {
    const char *data;
    uint64_t bytes;
} sllm_text;

/* Added to the logit of a token before it is drawn. Since 1.2. */
typedef struct sllm_logit_bias {
    int32_t token;
    float bias;              /* -1000 to 1000 */
} sllm_logit_bias;

/* A token is drawn from the model's logits after, in this order: logit_bias, the penalties, the constraint, top_k,
 * typical_p, top_p, min_p, temperature. All of that is a function of this struct and the tokens so far. */
typedef struct sllm_request {
    uint32_t struct_size;
    uint32_t ignore_eos;     /* 1: go on after an end-of-generation token */
    uint64_t request;        /* number chosen by the caller, unique among its unfinished requests */
    const int32_t *prompt;   /* prompt tokens, at least one */
    uint64_t n_prompt;
    uint64_t max_tokens;     /* resumed output included; 0: until the context is full */
    uint64_t seed;           /* the draw at a position is a function of seed and position */
    double temperature;      /* 0: greedy */
    double top_p;            /* 1 (or 0): all */
    double min_p;            /* 0: all */
    uint32_t top_k;          /* 0: all */
    uint32_t n_stop;
    const sllm_text *stop;   /* n_stop texts that end the answer and are not part of it */
    /* All since 1.2. */
    double typical_p;        /* 1 (or 0): all */
    double repeat_penalty;   /* divides positive and multiplies negative logits of recent tokens; 1 (or 0): off */
    double presence_penalty; /* taken from the logits of tokens that the output has */
    double frequency_penalty;/* ... and this much more for each time it has them */
    uint32_t repeat_last_n;  /* recent: so many last tokens, prompt included; 0: off */
    uint32_t logprobs;       /* 0: none; 1 + n: log-probabilities of each token and of the n likeliest, n up to 20 */
    const sllm_logit_bias *logit_bias;
    uint64_t n_logit_bias;   /* 1024 at most */
    /* What the answer must look like, as JSON; NULL: anything. {"grammar": GBNF text with the rule "root", or
     * "json_schema": a schema that becomes one; "lazy": true when it applies only from a trigger on, "triggers":
     * [{"type": "word" or "pattern", "value"}], "prefill": text at the prompt's end that the grammar describes too,
     * "shown": control tokens that are part of the answer's text}; one of the first two is enough. Not together with
     * ignore_eos. */
    const char *constraint;
    uint64_t constraint_bytes;
    const int32_t *resume;   /* output tokens that were generated before, here or elsewhere: the answer goes on after
                                them as if it had never stopped, the first event has index n_resume. Since 1.3 */
    uint64_t n_resume;       /* with the prompt at most context_tokens */
    uint32_t dimensions;     /* an engine that embeds: values of the vector, its first ones; 0: all. Since 1.3 */
    uint32_t adapter;        /* number of an adapter that was added; 0: the model as it is. Since 1.3 */
    uint32_t held;           /* 1: computes what it has and draws no token before sllm_engine_extend lets it go; until
                                then its only events are HELD and ERROR. Since 1.4 */
    uint32_t awaits_kv;      /* 1, with held: nothing is computed before sllm_engine_load_kv has brought the rows of its
                                first tokens. Since 1.5 */
} sllm_request;

typedef struct sllm_adapter_params {
    uint32_t struct_size;
    uint32_t adapter;         /* its number, chosen by the caller: 1 or more, of no other adapter of the engine */
    const char *header_path;  /* NUL-terminated; header.gguf of the adapter's checkpoint */
    const char *weights_path; /* NUL-terminated; the host copy of its weights */
    uint64_t weights_bytes;
    double scale;             /* of what it adds to the model; 0: 1 */
} sllm_adapter_params;

/* Brings a LoRA adapter to an engine with weights, for requests that name its number; others are computed meanwhile.
 * On the CPU it computes with them where they are: the host copy must stay until the adapter is removed, or the engine
 * parked or gone. Devices have a copy of their own, and the host copy may be released afterwards. Requests of one
 * adapter are computed together, those of different ones in turns. sllm_engine_park lets all adapters go. Since 1.3.
 * Errors: INVALID_ARGUMENT (the engine embeds or is deterministic, or the number is taken), NOT_FOUND, IO, CORRUPT,
 * OUT_OF_MEMORY, MODEL_UNSUPPORTED (not of this model, or no adapter), OVERLOADED (256 are there), WRONG_STATE (the
 * engine has no weights). [any] [blocks] */
SLLM_API sllm_status sllm_engine_add_adapter(sllm_engine *engine, const sllm_adapter_params *params);

/* Lets an adapter go that no unfinished request names. Since 1.3. Errors: NOT_FOUND; WRONG_STATE: it is in use.
 * [any] */
SLLM_API sllm_status sllm_engine_remove_adapter(sllm_engine *engine, uint32_t adapter);

/* Queues a request. Exactly one DONE or ERROR event will come for it if and only if this succeeds. An engine with a
 * pooling makes one vector of the prompt, whose events are STARTED, VECTOR and DONE; of the request's other members it
 * reads dimensions only, and requests that wait are computed together.
 * Errors: INVALID_ARGUMENT, NOT_FOUND (no such adapter), CONTEXT_OVERFLOW (the prompt leaves no room for a token),
 * OVERLOADED, CLOSED, ENGINE, WRONG_STATE (it has no weights now). [any] */
SLLM_API sllm_status sllm_engine_submit(sllm_engine *engine, const sllm_request *request);

/* Asks a request to end; its event is ERROR with CANCELLED unless it was done before. NOT_FOUND when it has ended.
 * [any] */
SLLM_API sllm_status sllm_engine_cancel(sllm_engine *engine, uint64_t request);

/* Holds a request from the next step on: it keeps its slot and its cache, draws no token, and may be let go again. Its
 * HELD event tells how many output tokens it has; no TOKEN comes between that and the call that lets it go. Since 1.4.
 * NOT_FOUND when it has ended; INVALID_ARGUMENT on an engine that embeds. [any] */
SLLM_API sllm_status sllm_engine_hold(sllm_engine *engine, uint64_t request);

/* More output, generated elsewhere, for a request that was submitted held; go 1: it is complete, the answer goes on
 * from here, beginning with its STARTED event. HELD events tell how many output tokens are computed, once the prompt
 * is. A step computes few tokens of held requests while it has others to compute. For a request that sllm_engine_hold
 * has held: no tokens. What cannot be output of the request ends it with an ERROR. Since 1.4.
 * Errors: INVALID_ARGUMENT, NOT_FOUND when it has ended. [any] */
SLLM_API sllm_status sllm_engine_extend(sllm_engine *engine, uint64_t request, const int32_t *tokens,
                                        uint64_t n_tokens, uint8_t go);

/* Writes the rows of the KV cache of a request's tokens [from, to), prompt first, to a file that exists (path,
 * NUL-terminated), in place of what is there, between two steps; 8 MiB at most. A KV event tells the file's XXH3
 * digest. The request goes on. Since 1.5.
 * Errors: INVALID_ARGUMENT, NOT_FOUND when it has ended, MODEL_UNSUPPORTED; as status of the event WRONG_STATE when so
 * many are not computed, IO, MODEL_UNSUPPORTED. [any] */
SLLM_API sllm_status sllm_engine_save_kv(sllm_engine *engine, uint64_t request, const char *path, uint32_t from,
                                         uint32_t to);

/* Takes such rows in, for a request that was submitted with awaits_kv, in order from 0 to `all`, which is less than the
 * tokens it has. With the last of them it computes what is left. A KV event tells when the file can go. Since 1.5.
 * Errors: as of sllm_engine_save_kv; as status of the event also CORRUPT. After one the request must be cancelled, or
 * let go, which computes all of it. [any] */
SLLM_API sllm_status sllm_engine_load_kv(sllm_engine *engine, uint64_t request, const char *path, uint32_t from,
                                         uint32_t to, uint32_t all, uint64_t digest);

enum {
    SLLM_EVENT_STARTED = 1, /* the request has a slot; prefill begins */
    SLLM_EVENT_TOKEN = 2,
    SLLM_EVENT_DONE = 3,
    SLLM_EVENT_ERROR = 4,
    SLLM_EVENT_VECTOR = 5,  /* the text is the vector: index values of 32-bit floating point. Since 1.3 */
    SLLM_EVENT_HELD = 6,    /* the request is held, and so many of its output tokens are computed. Since 1.4 */
    SLLM_EVENT_KV = 7       /* rows up to token `index` were saved or loaded; status: OK, or why not. Since 1.5 */
};

enum { SLLM_FINISH_STOP = 1, SLLM_FINISH_LENGTH = 2 };

/* A log-probability: the softmax of the model's bare logits, before bias, penalties, constraint, filters and
 * temperature. Entries lie one after the other without alignment, each followed by the piece_bytes bytes of its token,
 * which may be part of a UTF-8 character. Since 1.2. */
typedef struct sllm_logprob {
    int32_t token;
    uint32_t piece_bytes;
    double logprob;
} sllm_logprob;

/* text_* address the text buffer of the same drain: for STARTED the text of the resumed tokens as far as it was certain
 * with the last of them (since 1.3), for TOKEN the text that became certain with it (may be empty), for DONE what was
 * held back, for ERROR the message, for KV the digest of saved rows in 16 hexadecimal digits, or the message. Text is
 * always whole UTF-8 characters. After the text of a TOKEN follow logprob_bytes bytes of log-probabilities if they were
 * asked for: its own, then those of the likeliest. */
typedef struct sllm_event {
    uint64_t request;
    uint32_t kind;            /* SLLM_EVENT_* */
    int32_t status;           /* ERROR: a negative sllm_status; DONE: SLLM_FINISH_*; KV: a sllm_status */
    int32_t token;            /* TOKEN */
    uint32_t index;           /* TOKEN: index of the output token from 0; DONE: number of output tokens; HELD: of those
                                 that are computed */
    uint32_t text_offset;
    uint32_t text_bytes;
    uint32_t prompt_tokens;   /* STARTED, DONE, HELD */
    union {                   /* since 1.3 */
        uint32_t logprob_bytes; /* TOKEN */
        uint32_t cached_tokens; /* STARTED, DONE: of the prompt, found in the KV cache; HELD: of
                                   prompt and resumed output */
    };
    double queue_ms;          /* DONE: submit to slot */
    double prefill_ms;        /* DONE: slot to first token */
    double decode_ms;         /* DONE: first token to last */
} sllm_event;

/* Waits until events can be drained, for timeout_us at most. SLLM_OK also when the time ran out. [any] [blocks] */
SLLM_API sllm_status sllm_engine_wait(sllm_engine *engine, uint64_t timeout_us);

/* Moves up to cap events, oldest first, and their text into the caller's buffers; *n is their number, *text_n the bytes
 * of text. BUFFER_TOO_SMALL when not even the first event's text fits text_cap. [serial] */
SLLM_API sllm_status sllm_engine_drain(sllm_engine *engine, sllm_event *out, uint64_t cap, uint64_t *n, char *text,
                                       uint64_t text_cap, uint64_t *text_n);

#ifdef __cplusplus
}
#endif
#endif
