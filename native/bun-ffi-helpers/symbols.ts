/**
 * Every function of sllm.h as data, in the header's order: what both loaders turn into calls. The comments hold the
 * C declaration; test/tidy/abi-drift.test.ts compares names, arity and kinds with the header and the built library.
 */

/**
 * How a value crosses the border. `handle`: address of an opaque object, carried as a number so that it can be sent
 * between threads. `buffer`: memory of a typed array, borrowed for the call, or null. `text`: static NUL-terminated
 * text, copied on return.
 */
export type NativeType = "void" | "u8" | "i32" | "u32" | "u64" | "handle" | "buffer" | "text";

export interface NativeSymbol {
  readonly args: readonly NativeType[];
  readonly returns: NativeType;
}

export const symbols = {
  // uint32_t sllm_abi_version(void)
  sllm_abi_version: { args: [], returns: "u32" },
  // const char *sllm_status_name(sllm_status status)
  sllm_status_name: { args: ["i32"], returns: "text" },
  // uint64_t sllm_last_error(char *out, uint64_t cap)
  sllm_last_error: { args: ["buffer", "u64"], returns: "u64" },
  // uint64_t sllm_digest_xxh3(const void *data, uint64_t n)
  sllm_digest_xxh3: { args: ["buffer", "u64"], returns: "u64" },
  // sllm_status sllm_layout_plan(const char *library_dir, const char *header_path, char *out, uint64_t cap,
  //                              uint64_t *needed)
  sllm_layout_plan: { args: ["buffer", "buffer", "buffer", "u64", "buffer"], returns: "i32" },

  // sllm_status sllm_store_create(const sllm_store_params *params, sllm_store **out)
  sllm_store_create: { args: ["buffer", "buffer"], returns: "i32" },
  // void sllm_store_destroy(sllm_store *store)
  sllm_store_destroy: { args: ["handle"], returns: "void" },
  // sllm_status sllm_store_load(sllm_store *store, const sllm_load_params *params, uint64_t *load)
  sllm_store_load: { args: ["handle", "buffer", "buffer"], returns: "i32" },
  // sllm_status sllm_store_status(sllm_store *store, uint64_t load, sllm_load_status *out)
  sllm_store_status: { args: ["handle", "u64", "buffer"], returns: "i32" },
  // sllm_status sllm_store_wait(sllm_store *store, uint64_t timeout_us)
  sllm_store_wait: { args: ["handle", "u64"], returns: "i32" },
  // sllm_status sllm_store_release(sllm_store *store, uint64_t load)
  sllm_store_release: { args: ["handle", "u64"], returns: "i32" },
  // sllm_status sllm_store_arena(sllm_store *store, sllm_arena_status *out)
  sllm_store_arena: { args: ["handle", "buffer"], returns: "i32" },
  // sllm_status sllm_store_volume(sllm_store *store, const char *path, sllm_volume_status *out)
  sllm_store_volume: { args: ["handle", "buffer", "buffer"], returns: "i32" },

  // sllm_status sllm_devices(const char *library_dir, char *out, uint64_t cap, uint64_t *needed)
  sllm_devices: { args: ["buffer", "buffer", "u64", "buffer"], returns: "i32" },
  // sllm_status sllm_engine_warm(const char *library_dir)
  sllm_engine_warm: { args: ["buffer"], returns: "i32" },
  // sllm_status sllm_engine_create(const sllm_engine_params *params, sllm_engine **out)
  sllm_engine_create: { args: ["buffer", "buffer"], returns: "i32" },
  // sllm_status sllm_engine_build(const sllm_engine_params *params, sllm_engine **out)
  sllm_engine_build: { args: ["buffer", "buffer"], returns: "i32" },
  // sllm_status sllm_engine_attach(sllm_engine *engine, const char *weights_path)
  sllm_engine_attach: { args: ["handle", "buffer"], returns: "i32" },
  // sllm_status sllm_engine_park(sllm_engine *engine, uint8_t keep_weights)
  sllm_engine_park: { args: ["handle", "u8"], returns: "i32" },
  // void sllm_engine_destroy(sllm_engine *engine)
  sllm_engine_destroy: { args: ["handle"], returns: "void" },
  // sllm_status sllm_engine_info_get(sllm_engine *engine, sllm_engine_info *out)
  sllm_engine_info_get: { args: ["handle", "buffer"], returns: "i32" },
  // sllm_status sllm_engine_activity_get(sllm_engine *engine, sllm_engine_activity *out)
  sllm_engine_activity_get: { args: ["handle", "buffer"], returns: "i32" },
  // sllm_status sllm_limit_memory(uint64_t bytes)
  sllm_limit_memory: { args: ["u64"], returns: "i32" },
  // sllm_status sllm_engine_device_memory(sllm_engine *engine, char *out, uint64_t cap, uint64_t *needed)
  sllm_engine_device_memory: { args: ["handle", "buffer", "u64", "buffer"], returns: "i32" },
  // sllm_status sllm_engine_render_chat(sllm_engine *engine, const char *messages, uint64_t messages_bytes,
  //                                     char *out, uint64_t cap, uint64_t *needed)
  sllm_engine_render_chat: { args: ["handle", "buffer", "u64", "buffer", "u64", "buffer"], returns: "i32" },
  // sllm_status sllm_chat_open(sllm_engine *engine, const char *request, uint64_t request_bytes, sllm_chat **out)
  sllm_chat_open: { args: ["handle", "buffer", "u64", "buffer"], returns: "i32" },
  // void sllm_chat_close(sllm_chat *chat)
  sllm_chat_close: { args: ["handle"], returns: "void" },
  // sllm_status sllm_chat_describe(sllm_chat *chat, char *out, uint64_t cap, uint64_t *needed)
  sllm_chat_describe: { args: ["handle", "buffer", "u64", "buffer"], returns: "i32" },
  // sllm_status sllm_chat_feed(sllm_chat *chat, const char *text, uint64_t text_bytes, uint8_t last)
  sllm_chat_feed: { args: ["handle", "buffer", "u64", "u8"], returns: "i32" },
  // sllm_status sllm_chat_take(sllm_chat *chat, char *out, uint64_t cap, uint64_t *needed)
  sllm_chat_take: { args: ["handle", "buffer", "u64", "buffer"], returns: "i32" },
  // sllm_status sllm_engine_tokenize(sllm_engine *engine, const char *text, uint64_t text_bytes,
  //                                  uint8_t add_special, uint8_t parse_special, int32_t *out, uint64_t cap,
  //                                  uint64_t *n)
  sllm_engine_tokenize: {
    args: ["handle", "buffer", "u64", "u8", "u8", "buffer", "u64", "buffer"],
    returns: "i32",
  },
  // sllm_status sllm_engine_tokenize_pair(sllm_engine *engine, const char *query, uint64_t query_bytes,
  //                                       const char *document, uint64_t document_bytes, int32_t *out,
  //                                       uint64_t cap, uint64_t *n)
  sllm_engine_tokenize_pair: {
    args: ["handle", "buffer", "u64", "buffer", "u64", "buffer", "u64", "buffer"],
    returns: "i32",
  },
  // sllm_status sllm_engine_add_adapter(sllm_engine *engine, const sllm_adapter_params *params)
  sllm_engine_add_adapter: { args: ["handle", "buffer"], returns: "i32" },
  // sllm_status sllm_engine_remove_adapter(sllm_engine *engine, uint32_t adapter)
  sllm_engine_remove_adapter: { args: ["handle", "u32"], returns: "i32" },
  // sllm_status sllm_engine_submit(sllm_engine *engine, const sllm_request *request)
  sllm_engine_submit: { args: ["handle", "buffer"], returns: "i32" },
  // sllm_status sllm_engine_cancel(sllm_engine *engine, uint64_t request)
  sllm_engine_cancel: { args: ["handle", "u64"], returns: "i32" },
  // sllm_status sllm_engine_hold(sllm_engine *engine, uint64_t request)
  sllm_engine_hold: { args: ["handle", "u64"], returns: "i32" },
  // sllm_status sllm_engine_extend(sllm_engine *engine, uint64_t request, const int32_t *tokens, uint64_t n_tokens,
  //                                uint8_t go)
  sllm_engine_extend: { args: ["handle", "u64", "buffer", "u64", "u8"], returns: "i32" },
  // sllm_status sllm_engine_save_kv(sllm_engine *engine, uint64_t request, const char *path, uint32_t from, uint32_t to)
  sllm_engine_save_kv: { args: ["handle", "u64", "buffer", "u32", "u32"], returns: "i32" },
  // sllm_status sllm_engine_load_kv(sllm_engine *engine, uint64_t request, const char *path, uint32_t from, uint32_t to,
  //                                 uint32_t all, uint64_t digest)
  sllm_engine_load_kv: { args: ["handle", "u64", "buffer", "u32", "u32", "u32", "u64"], returns: "i32" },
  // sllm_status sllm_engine_wait(sllm_engine *engine, uint64_t timeout_us)
  sllm_engine_wait: { args: ["handle", "u64"], returns: "i32" },
  // sllm_status sllm_engine_drain(sllm_engine *engine, sllm_event *out, uint64_t cap, uint64_t *n, char *text,
  //                               uint64_t text_cap, uint64_t *text_n)
  sllm_engine_drain: {
    args: ["handle", "buffer", "u64", "buffer", "buffer", "u64", "buffer"],
    returns: "i32",
  },
} as const satisfies Record<string, NativeSymbol>;

declare const handleBrand: unique symbol;
/** Address of an object of the library. Nothing computes with it; 0 never occurs. */
export type NativeHandle = bigint & { readonly [handleBrand]: true };

/** Memory that a call may read or fill. Its first byte is what the library sees. */
export type NativeBuffer = Uint8Array | Int32Array | BigUint64Array;

interface ArgumentTypes {
  void: never;
  u8: number;
  i32: number;
  u32: number;
  u64: bigint | number;
  handle: NativeHandle;
  buffer: NativeBuffer | null;
  text: never;
}

interface ReturnTypes {
  void: undefined;
  u8: number;
  i32: number;
  u32: number;
  u64: bigint;
  handle: NativeHandle;
  buffer: never;
  text: string;
}

type ArgumentsOf<T extends readonly NativeType[]> = { -readonly [K in keyof T]: ArgumentTypes[T[K]] };

/** The table as TypeScript functions. */
export type NativeCalls = {
  readonly [K in keyof typeof symbols]: (
    ...args: ArgumentsOf<(typeof symbols)[K]["args"]>
  ) => ReturnTypes[(typeof symbols)[K]["returns"]];
};

/** What a loader makes of a shared library. */
export interface NativeBinding {
  readonly calls: NativeCalls;
  /** Address of a buffer's first byte; valid while the caller keeps the buffer referenced. */
  addressOf(buffer: NativeBuffer): bigint;
}

/** Opens the shared library at a path. Throws what the runtime says when it or a symbol is missing. */
export type NativeLoader = (path: string) => NativeBinding;
