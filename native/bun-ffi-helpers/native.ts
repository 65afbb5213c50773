/**
 * The native library with types: opens it, checks its ABI version before anything else and turns statuses into
 * errors. Stores and engines are made here; their own calls are in native-store.ts and native-engine.ts.
 */
import { CallMemory, cString } from "./call-memory.ts";
import { checkStatus, createdHandle, fillText } from "./checked-calls.ts";
import { NativeLoadError } from "./errors.ts";
import { NativeEngine, type NativeEngineParams } from "./native-engine.ts";
import { NativeStore, type NativeStoreParams } from "./native-store.ts";
import { abiVersion, engineKind, engineParams, storeParams } from "./sllm-structs.ts";
import type { NativeBinding, NativeHandle, NativeLoader } from "./symbols.ts";

export { NativeLoadError, SllmNativeError, toSafeNumber } from "./errors.ts";
export { type ChatDescription, NativeChat } from "./native-chat.ts";
export type {
  NativeAdapterParams,
  NativeEngineParams,
  NativeLogitBias,
  NativeRequest,
} from "./native-engine.ts";
export { NativeEngine } from "./native-engine.ts";
export type { DrainBuffers, NativeEvent, NativeLogprob } from "./native-events.ts";
export { newDrainBuffers } from "./native-events.ts";
export type {
  NativeArenaStatus,
  NativeLoadParams,
  NativeLoadStatus,
  NativeLoadTrace,
  NativeStoreParams,
  NativeVolumeStatus,
} from "./native-store.ts";
export { NativeStore } from "./native-store.ts";
export { type FailureName, failureName } from "./sllm-structs.ts";
export type { NativeHandle, NativeLoader } from "./symbols.ts";

/** The opened library. All calls are synchronous; those marked [blocks] in the header belong into a thread. */
export class NativeLibrary {
  readonly path: string;
  readonly binding: NativeBinding;

  private constructor(path: string, binding: NativeBinding) {
    this.path = path;
    this.binding = binding;
  }

  /** Opens the library and compares ABI versions. Throws NativeLoadError with the path and what is wrong. */
  static open(path: string, loader: NativeLoader): NativeLibrary {
    let binding: NativeBinding;
    try {
      binding = loader(path);
    } catch (cause) {
      throw new NativeLoadError(path, cause instanceof Error ? cause.message : String(cause), cause);
    }
    const found = binding.calls.sllm_abi_version();
    if (found >>> 16 !== abiVersion >>> 16 || found < abiVersion) {
      const hex = (version: number) => `0x${version.toString(16).padStart(8, "0")}`;
      throw new NativeLoadError(path, `its ABI version is ${hex(found)}, wanted is ${hex(abiVersion)}`);
    }
    return new NativeLibrary(path, binding);
  }

  /** sllm_abi_version. */
  abiVersion(): number {
    return this.binding.calls.sllm_abi_version();
  }

  /** sllm_status_name. */
  statusName(status: number): string {
    return this.binding.calls.sllm_status_name(status);
  }

  /** sllm_limit_memory: private memory of this process may grow by so many bytes from now on. */
  limitMemory(bytes: number): void {
    checkStatus("sllm_limit_memory", this.binding, this.binding.calls.sllm_limit_memory(BigInt(bytes)));
  }

  /** XXH3 of bytes: the fast digest of checkpoint chunks. */
  digestXxh3(bytes: Uint8Array): bigint {
    return this.binding.calls.sllm_digest_xxh3(bytes.byteLength === 0 ? null : bytes, bytes.byteLength);
  }

  /**
   * sllm_layout_plan: the JSON text of the canonical tensor order. Blocks, and a hostile header can end the process:
   * call it in a process of its own.
   */
  layoutPlan(libraryDir: string, headerPath: string): string {
    return fillText("sllm_layout_plan", this.binding, (out, cap, needed) =>
      this.binding.calls.sllm_layout_plan(cString(libraryDir), cString(headerPath), out, cap, needed),
    );
  }

  /** sllm_store_create. The caller owns the store and disposes of it. */
  createStore(params: NativeStoreParams = {}): NativeStore {
    const { reader_threads = 0, arena_bytes = 0, prefault_bytes = 0, huge_pages = true, state_dir } = params;
    const { read_bytes_per_second = 0 } = params;
    using memory = new CallMemory(this.binding);
    const encoded = storeParams.encode({
      reader_threads,
      arena_bytes: BigInt(arena_bytes),
      prefault_bytes: BigInt(prefault_bytes),
      huge_pages: huge_pages ? 0 : 1,
      read_method: 0,
      state_dir: state_dir === undefined ? 0n : memory.cString(state_dir),
      read_bytes_per_second: BigInt(read_bytes_per_second),
    });
    const out = new BigUint64Array(1);
    const status = this.binding.calls.sllm_store_create(encoded, out);
    checkStatus("sllm_store_create", this.binding, status);
    return new NativeStore(this.binding, createdHandle("sllm_store_create", out));
  }

  /** sllm_devices: JSON text. Blocks and opens the devices' drivers: call it in a process of its own. */
  devices(libraryDir: string): string {
    return fillText("sllm_devices", this.binding, (out, cap, needed) =>
      this.binding.calls.sllm_devices(cString(libraryDir), out, cap, needed),
    );
  }

  /** sllm_engine_warm: loads the engine libraries ahead of the first engine. Blocks. */
  warmEngine(libraryDir: string): void {
    const status = this.binding.calls.sllm_engine_warm(cString(libraryDir));
    checkStatus("sllm_engine_warm", this.binding, status);
  }

  /** sllm_engine_create: blocks until the weights are there. The caller owns the engine and disposes of it. */
  createEngine(params: NativeEngineParams): NativeEngine {
    return this.#newEngine("sllm_engine_create", params);
  }

  /** sllm_engine_build: an engine without weights; `weights_path` is not read. The caller owns it and disposes of it. */
  buildEngine(params: NativeEngineParams): NativeEngine {
    return this.#newEngine("sllm_engine_build", params);
  }

  #newEngine(call: "sllm_engine_create" | "sllm_engine_build", params: NativeEngineParams): NativeEngine {
    using memory = new CallMemory(this.binding);
    const encoded = engineParams.encode({
      ...params,
      kind: engineKind[params.kind],
      library_dir: memory.cString(params.library_dir),
      header_path: memory.cString(params.header_path),
      weights_path: memory.cString(params.weights_path),
      devices: memory.cString(params.devices ?? ""),
      deterministic: params.deterministic ? 1 : 0,
      repacked: params.repacked ? 1 : 0,
    });
    const out = new BigUint64Array(1);
    const status = this.binding.calls[call](encoded, out);
    checkStatus(call, this.binding, status);
    return new NativeEngine(this.binding, createdHandle(call, out));
  }

  /**
   * An engine that another thread owns, by its handle: for the calls marked [any]. It must not be disposed of, and
   * the owner keeps it alive as long as it is used.
   */
  borrowEngine(handle: NativeHandle): NativeEngine {
    return new NativeEngine(this.binding, handle);
  }
}
