/**
 * One start of a model in a process of its own, through the C ABI alone: reads its wish (JSON) from the command line,
 * prints one line of JSON (`StartOutcome`) when the first token was there, and ends when its standard input closes, so
 * that another process can map the host copy in the meantime. The clock starts with what a worker has before the first
 * request: the engine libraries loaded, as in a standby engine process, and for the disk an empty store whose arena has
 * been faulted in.
 */
import { runtimeLoader } from "../../../native/bun-ffi-helpers/load.ts";
import {
  type NativeEngine,
  NativeLibrary,
  type NativeStore,
  newDrainBuffers,
} from "../../../native/bun-ffi-helpers/native.ts";
import { limits } from "../../../schema/limits.ts";
import { readCheckpoint } from "../../../worker/checkpoints/import.ts";
import { bytesCopied, processMemory } from "./memory.ts";

export interface StartWish {
  readonly library: string;
  readonly engine_libraries: string;
  /** The checkpoint's folder. */
  readonly checkpoint: string;
  /** Host copy that another process holds; null: load it from disk. */
  readonly host_copy: string | null;
  readonly prompt: string;
  readonly context_tokens: number;
  readonly threads: number;
}

export interface StartOutcome {
  /** From the begin of the load until the engine takes requests, all digests checked. */
  readonly ready_ms: number;
  readonly first_token_ms: number;
  /** The same prompt once more: what is left when nothing has to be loaded or touched. */
  readonly again_ms: number;
  readonly build_ms: number;
  readonly wait_ms: number;
  /** The store's own time; null when the host copy was there. */
  readonly read_ms: number | null;
  readonly direct_io: boolean | null;
  /** Processor time of this process until ready. */
  readonly cpu_ms: number;
  readonly bytes_copied: number;
  /** PSS that came since the library was opened, less the weights themselves. */
  readonly pss_beyond_weights_bytes: number;
  readonly anonymous_growth_bytes: number;
  readonly kv_bytes: number;
  /** Where another process finds the host copy; null if this one did not make it. */
  readonly host_copy: string | null;
}

/** Milliseconds until the first token of the prompt. Throws when the engine fails. */
function firstTokenMs(engine: NativeEngine, request: number, prompt: Int32Array): number {
  const started = performance.now();
  const sampling = { seed: 1n, temperature: 0, top_k: 0, top_p: 1, min_p: 0, stop: [] };
  engine.submit({ request, prompt, max_tokens: 1, ignore_eos: true, ...sampling });
  const buffers = newDrainBuffers(16);
  let first = Number.NaN;
  for (;;) {
    engine.wait(1_000_000);
    for (const event of engine.drain(buffers)) {
      if (event.kind === 2) first = performance.now() - started;
      if (event.kind === 4) throw new Error(`the engine failed: ${event.text}`);
      if (event.kind === 3) return first;
    }
  }
}

/** A store with memory for these weights that has been touched already. */
async function readyStore(library: NativeLibrary, weights_bytes: number): Promise<NativeStore> {
  const arena_bytes = (Math.ceil(weights_bytes / limits.chunk_bytes) + 1) * limits.chunk_bytes;
  const store = library.createStore({ arena_bytes, prefault_bytes: arena_bytes });
  while (store.arena().prefaulting) await Bun.sleep(10);
  return store;
}

async function start(wish: StartWish): Promise<StartOutcome> {
  const { manifest, header_path, weights_path } = await readCheckpoint(wish.checkpoint);
  const { bytes: weights_bytes, chunk_bytes, chunks } = manifest.weights;
  const library = NativeLibrary.open(wish.library, await runtimeLoader());
  const digests = BigUint64Array.from(chunks, (chunk) => BigInt(`0x${chunk.xxh3}`));
  library.warmEngine(wish.engine_libraries);
  const store = wish.host_copy === null ? await readyStore(library, weights_bytes) : null;
  const before = processMemory();
  const cpuBefore = process.cpuUsage();
  const started = performance.now();
  const load = store?.load({ weights_path, weights_bytes, chunk_bytes, chunk_digests: digests }) ?? 0n;
  const host_copy = wish.host_copy ?? `/proc/${process.pid}/fd/${store?.status(load).fd}`;
  const engine = library.createEngine({
    kind: "SLLM_ENGINE_LLAMA",
    library_dir: wish.engine_libraries,
    header_path,
    weights_path: host_copy,
    weights_bytes: BigInt(weights_bytes),
    context_tokens: wish.context_tokens,
    slots: 1,
    batch_tokens: 512,
    threads: wish.threads,
    queue: 8,
    echo_token_us: 0,
  });
  const ready_ms = performance.now() - started;
  const cpu = process.cpuUsage(cpuBefore);
  const after = processMemory();
  const prompt = engine.tokenize(wish.prompt, { add_special: true, parse_special: false });
  const first = firstTokenMs(engine, 1, prompt);
  const again_ms = firstTokenMs(engine, 2, prompt);
  const { model_build_ms, weights_wait_ms, context_tokens } = engine.info();
  const status = store?.status(load);
  const anonymous_growth_bytes = after.anonymous_bytes - before.anonymous_bytes;
  const kv_bytes = manifest.model.kv_bytes_per_token * context_tokens;
  const mapped_bytes = after.shared_mapped_bytes - before.shared_mapped_bytes;
  return {
    ready_ms,
    first_token_ms: ready_ms + first,
    again_ms,
    build_ms: model_build_ms,
    wait_ms: weights_wait_ms,
    read_ms: status?.read_ms ?? null,
    direct_io: status?.direct_io ?? null,
    cpu_ms: (cpu.user + cpu.system) / 1000,
    bytes_copied: bytesCopied({ weights_bytes, mapped_bytes, anonymous_growth_bytes, kv_bytes }),
    pss_beyond_weights_bytes: pssBeyondWeights(before.pss_bytes, weights_bytes, store !== null),
    anonymous_growth_bytes,
    kv_bytes,
    host_copy: store === null ? null : host_copy,
  };
}

/**
 * Taken after the first token, when the KV cache and the compute buffers have been touched. The process with the arena
 * held the pages of the weights before; of a host copy that a second process maps, half counts in each of the two.
 */
function pssBeyondWeights(beforeBytes: number, weightsBytes: number, hasArena: boolean): number {
  return processMemory().pss_bytes - beforeBytes - (hasArena ? 0 : weightsBytes / 2);
}

if (import.meta.main) {
  const outcome = await start(JSON.parse(process.argv[2] ?? "") as StartWish);
  process.stdout.write(`${JSON.stringify(outcome)}\n`);
  // The host copy lives as long as this process.
  for await (const _ of process.stdin);
  process.exit(0);
}
