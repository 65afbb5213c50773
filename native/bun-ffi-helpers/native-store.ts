/** The store of the native library: reads checkpoints from disk into an arena of host memory that engines map. */
import { CallMemory, cString } from "./call-memory.ts";
import { checkStatus } from "./checked-calls.ts";
import { toSafeNumber } from "./errors.ts";
import {
  arenaStatus,
  type FailureName,
  failureName,
  loadParams,
  loadStatus,
  volumeStatus,
} from "./sllm-structs.ts";
import type { NativeBinding, NativeHandle } from "./symbols.ts";

export interface NativeStoreParams {
  readonly reader_threads?: number;
  /** Host memory that copies may use at most; 0 (or left out): the machine's. */
  readonly arena_bytes?: number;
  /** Of it, kept faulted in from the start, in the background. */
  readonly prefault_bytes?: number;
  /** Whether to use huge pages where the system can; true if left out. */
  readonly huge_pages?: boolean;
  /** Existing folder that keeps what was found out about volumes; nothing does if left out. */
  readonly state_dir?: string;
  /** Read from a volume at most; as many as can be if left out. */
  readonly read_bytes_per_second?: number;
}

export interface NativeArenaStatus {
  readonly arena_bytes: number;
  /** In whole chunks of 16 MiB. */
  readonly used_bytes: number;
  /** With memory behind them, used ones included. */
  readonly faulted_bytes: number;
  readonly prefault_bytes: number;
  /** That the first pre-fault took; so far, while it goes on. */
  readonly prefault_ms: number;
  readonly prefaulting: boolean;
  /** Of faulted_bytes, in huge pages. */
  readonly huge_bytes: number;
}

/** A file system that checkpoints are read from, as a link with a queue. */
export interface NativeVolumeStatus {
  readonly read_method: "io_uring" | "threads";
  /** Number of the file system, the same as long as it is mounted. */
  readonly file_system: bigint;
  readonly block_bytes: number;
  readonly in_flight_bytes: number;
  /** Of loads in progress, not read yet. */
  readonly queued_bytes: number;
  readonly queued_loads: number;
  /** Around the page cache, where the file system can. */
  readonly direct_io: boolean;
  /** As the probe or the last large load measured it; null: not yet. */
  readonly bytes_per_second: number | null;
  /** Of the arena, kept at hand for io_uring. */
  readonly registered_bytes: number;
  /** Whether a probe has found these settings. */
  readonly probed: boolean;
}

/** When the stages of a load were reached, in milliseconds since its submission (0: not yet), and what they cost. */
export interface NativeLoadTrace {
  readonly first_read_ms: number;
  readonly first_verified_ms: number;
  readonly last_read_ms: number;
  readonly ended_ms: number;
  /** Nothing was being read because memory was not faulted in yet. */
  readonly memory_wait_ms: number;
  /** Processor time to fault memory in. */
  readonly fault_ms: number;
  /** Processor time of the digests. */
  readonly digest_ms: number;
  /** Read around the page cache. */
  readonly direct_bytes: number;
  /** Copied from the page cache, which had them. */
  readonly cached_bytes: number;
  /** Read through the page cache, which had not all of them. */
  readonly buffered_bytes: number;
  /** Reads that came back short or interrupted and were continued. */
  readonly retries: number;
  /** Chunks that were read twice because their digest differed. */
  readonly rereads: number;
}

export interface NativeLoadParams {
  readonly weights_path: string;
  readonly weights_bytes: number;
  readonly chunk_bytes: number;
  /** XXH3 of every chunk, in order. */
  readonly chunk_digests: BigUint64Array;
  /** Arena chunks that the weights pass through on their way to one engine with devices; absent: all stay. */
  readonly stream_chunks?: number;
  /** Stretches of the weights that are read side by side, one for each device; absent: the order of the file. */
  readonly lanes?: number;
}

export interface NativeLoadStatus {
  readonly state: "loading" | "ready" | "failed";
  /** Why it failed; null unless it did. */
  readonly failure: { readonly status_name: FailureName; readonly message: string } | null;
  /** Descriptor of the host copy in this process; the store closes it on release. */
  readonly fd: number;
  readonly direct_io: boolean;
  readonly bytes_done: number;
  readonly bytes_total: number;
  readonly read_ms: number;
  readonly trace: NativeLoadTrace;
}

/** Owned: dispose of it once, from one thread; calls afterwards throw. Dispose blocks until its threads are joined. */
export class NativeStore implements Disposable {
  readonly #binding: NativeBinding;
  #handle: NativeHandle | null;

  constructor(binding: NativeBinding, handle: NativeHandle) {
    this.#binding = binding;
    this.#handle = handle;
  }

  /** sllm_store_load: begins to read and returns the number of the load at once. */
  load(params: NativeLoadParams): bigint {
    using memory = new CallMemory(this.#binding);
    const encoded = loadParams.encode({
      weights_path: memory.cString(params.weights_path),
      weights_bytes: BigInt(params.weights_bytes),
      chunk_bytes: BigInt(params.chunk_bytes),
      stream_chunks: params.stream_chunks ?? 0,
      lanes: params.lanes ?? 0,
      chunk_digests: memory.address(params.chunk_digests),
      n_chunks: BigInt(params.chunk_digests.length),
    });
    const load = new BigUint64Array(1);
    const status = this.#binding.calls.sllm_store_load(this.#open(), encoded, load);
    checkStatus("sllm_store_load", this.#binding, status);
    return load[0] ?? 0n;
  }

  /** sllm_store_status. */
  status(load: bigint): NativeLoadStatus {
    const out = loadStatus.allocate();
    const status = this.#binding.calls.sllm_store_status(this.#open(), load, out);
    checkStatus("sllm_store_status", this.#binding, status);
    const found = loadStatus.decode(new DataView(out.buffer));
    return {
      state: found.state < 0 ? "failed" : found.state === 0 ? "loading" : "ready",
      failure: found.state < 0 ? { status_name: failureName(found.state), message: found.message } : null,
      fd: found.fd,
      direct_io: found.direct_io !== 0,
      bytes_done: toSafeNumber(found.bytes_done, "bytes_done"),
      bytes_total: toSafeNumber(found.bytes_total, "bytes_total"),
      read_ms: found.read_ms,
      trace: {
        first_read_ms: found.first_read_ms,
        first_verified_ms: found.first_verified_ms,
        last_read_ms: found.last_read_ms,
        ended_ms: found.ended_ms,
        memory_wait_ms: found.memory_wait_ms,
        fault_ms: found.fault_ms,
        digest_ms: found.digest_ms,
        direct_bytes: toSafeNumber(found.direct_bytes, "direct_bytes"),
        cached_bytes: toSafeNumber(found.cached_bytes, "cached_bytes"),
        buffered_bytes: toSafeNumber(found.buffered_bytes, "buffered_bytes"),
        retries: found.retries,
        rereads: found.rereads,
      },
    };
  }

  /** sllm_store_wait: blocks; keep it off the event loop. */
  wait(timeout_us: number): void {
    const status = this.#binding.calls.sllm_store_wait(this.#open(), timeout_us);
    checkStatus("sllm_store_wait", this.#binding, status);
  }

  /** sllm_store_release: only when all engines that were given the copy are gone; its memory is used again. */
  release(load: bigint): void {
    const status = this.#binding.calls.sllm_store_release(this.#open(), load);
    checkStatus("sllm_store_release", this.#binding, status);
  }

  /** sllm_store_arena. */
  arena(): NativeArenaStatus {
    const out = arenaStatus.allocate();
    const status = this.#binding.calls.sllm_store_arena(this.#open(), out);
    checkStatus("sllm_store_arena", this.#binding, status);
    const found = arenaStatus.decode(new DataView(out.buffer));
    return {
      arena_bytes: toSafeNumber(found.arena_bytes, "arena_bytes"),
      used_bytes: toSafeNumber(found.used_bytes, "used_bytes"),
      faulted_bytes: toSafeNumber(found.faulted_bytes, "faulted_bytes"),
      prefault_bytes: toSafeNumber(found.prefault_bytes, "prefault_bytes"),
      prefault_ms: found.prefault_ms,
      prefaulting: found.prefaulting !== 0,
      huge_bytes: toSafeNumber(found.huge_bytes, "huge_bytes"),
    };
  }

  /** sllm_store_volume: of the file or folder at `path`. */
  volume(path: string): NativeVolumeStatus {
    const out = volumeStatus.allocate();
    const status = this.#binding.calls.sllm_store_volume(this.#open(), cString(path), out);
    checkStatus("sllm_store_volume", this.#binding, status);
    const found = volumeStatus.decode(new DataView(out.buffer));
    return {
      read_method: found.read_method === 0 ? "io_uring" : "threads",
      file_system: found.file_system,
      block_bytes: toSafeNumber(found.block_bytes, "block_bytes"),
      in_flight_bytes: toSafeNumber(found.in_flight_bytes, "in_flight_bytes"),
      queued_bytes: toSafeNumber(found.queued_bytes, "queued_bytes"),
      queued_loads: found.queued_loads,
      direct_io: found.direct_io !== 0,
      bytes_per_second: found.bytes_per_second === 0 ? null : found.bytes_per_second,
      registered_bytes: toSafeNumber(found.registered_bytes, "registered_bytes"),
      probed: found.probed !== 0,
    };
  }

  [Symbol.dispose](): void {
    const handle = this.#handle;
    if (handle === null) return;
    this.#handle = null;
    this.#binding.calls.sllm_store_destroy(handle);
  }

  #open(): NativeHandle {
    if (this.#handle === null) throw new Error("the store has been disposed of");
    return this.#handle;
  }
}
