/**
 * Starts of a model in a process of its own, through the C ABI alone: reads its wish (JSON) from the command line,
 * prints one line of JSON (`StartOutcome[]`) when the measured starts have brought their first tokens, and ends when
 * its standard input closes, so that another process can map the host copy in the meantime. The clock starts with what
 * a worker has before the request: the engine libraries loaded, as in a standby engine process, and for the disk an
 * empty store whose arena has been faulted in.
 */
import { runtimeLoader } from "../../../native/bun-ffi-helpers/load.ts";
import {
  type NativeEngine,
  type NativeEngineParams,
  NativeLibrary,
  type NativeStore,
} from "../../../native/bun-ffi-helpers/native.ts";
import type { Manifest } from "../../../schema/checkpoint/manifest.ts";
import { limits } from "../../../schema/limits.ts";
import { asModel, readCheckpoint } from "../../../worker/checkpoints/import.ts";
import { median } from "../statistics.ts";
import { firstTokenMs, promptLike } from "./first-token.ts";
import { bytesCopied, type ProcessMemory, processMemory } from "./memory.ts";

export interface StartWish {
  readonly library: string;
  readonly engine_libraries: string;
  /** The checkpoint's folder. */
  readonly checkpoint: string;
  /** Host copy that another process holds; null: load it from disk, from standby. */
  readonly host_copy: string | null;
  /** With a host copy: from standby, or from a skeleton and then parked in both ways. */
  readonly has_skeleton: boolean;
  readonly prompt: string;
  readonly context_tokens: number;
  readonly threads: number;
}

/**
 * What was there before the start. standby: a process with the engine libraries loaded. skeleton: one that has built the
 * model without weights. parked: an engine that has run, whose weights' pages were kept; parked_unmapped: were let go.
 */
export type StartState = "standby" | "skeleton" | "parked" | "parked_unmapped";

export interface StartOutcome {
  readonly from: StartState;
  /** From the begin of the load until the engine takes requests, all digests checked. */
  readonly ready_ms: number;
  readonly first_token_ms: number;
  /** The first token of the first request once ready, less the way to ready. */
  readonly first_ms: number;
  /** Prompts of the same length, again and again: what a first token costs in the steady state. */
  readonly steady_ms: number;
  readonly build_ms: number;
  readonly wait_ms: number;
  /** The store's own time; null when the host copy was there. */
  readonly read_ms: number | null;
  readonly direct_io: boolean | null;
  /** Processor time of this process until ready. */
  readonly cpu_ms: number;
  readonly bytes_copied: number;
  /** Growth of PSS that is not in the arena, from the idle process to after the first tokens. */
  readonly private_growth_bytes: number;
  readonly anonymous_growth_bytes: number;
  readonly kv_bytes: number;
  /** Where another process finds the host copy; null if this one did not make it. */
  readonly host_copy: string | null;
}

/** Requests whose median is the steady state. */
const steadyRequests = 3;

/** A store with memory for these weights that has been touched already. */
async function readyStore(library: NativeLibrary, weights_bytes: number): Promise<NativeStore> {
  const arena_bytes = (Math.ceil(weights_bytes / limits.chunk_bytes) + 1) * limits.chunk_bytes;
  const store = library.createStore({ arena_bytes, prefault_bytes: arena_bytes });
  while (store.arena().prefaulting) await Bun.sleep(10);
  return store;
}

/** What the process held and had used before a start. */
interface Before {
  readonly memory: ProcessMemory;
  readonly cpu: NodeJS.CpuUsage;
  readonly started: number;
}

function beforeStart(): Before {
  return { memory: processMemory(), cpu: process.cpuUsage(), started: performance.now() };
}

interface Start {
  readonly from: StartState;
  readonly engine: NativeEngine;
  readonly before: Before;
  /** The store and its load when the bytes came from disk. */
  readonly disk: { readonly store: NativeStore; readonly load: bigint } | null;
}

interface Scene {
  readonly wish: StartWish;
  readonly manifest: Manifest;
  readonly library: NativeLibrary;
  readonly params: Omit<NativeEngineParams, "weights_path">;
  /** Shared memory in the address space before any of the weights were. */
  readonly mapped_before_bytes: number;
}

/** To be called as soon as the engine takes requests: stops the clock, then runs the requests. */
function outcomeOf(start: Start, { wish, manifest, mapped_before_bytes }: Scene): StartOutcome {
  const { engine, before, disk } = start;
  const { model, weights } = manifest;
  const ready_ms = performance.now() - before.started;
  const cpu = process.cpuUsage(before.cpu);
  const ready = processMemory();
  const { model_build_ms, weights_wait_ms, context_tokens, vocabulary_tokens } = engine.info();
  const prompt = engine.tokenize(wish.prompt, { add_special: true, parse_special: false });
  const first_ms = firstTokenMs(engine, prompt);
  const others = Array.from({ length: steadyRequests }, (_, i) =>
    firstTokenMs(engine, promptLike(prompt, i + 1, vocabulary_tokens)),
  );
  const status = disk?.store.status(disk.load);
  const now = processMemory();
  const beyondArena = (memory: ProcessMemory) => memory.pss_bytes - memory.shared_memory_pss_bytes;
  const anonymous_growth_bytes = ready.anonymous_bytes - before.memory.anonymous_bytes;
  const kv_bytes = model.kv_bytes_per_token * context_tokens;
  return {
    from: start.from,
    ready_ms,
    first_token_ms: ready_ms + first_ms,
    first_ms,
    steady_ms: median(others),
    build_ms: model_build_ms,
    wait_ms: weights_wait_ms,
    read_ms: status?.read_ms ?? null,
    direct_io: status?.direct_io ?? null,
    cpu_ms: (cpu.user + cpu.system) / 1000,
    bytes_copied: bytesCopied({
      weights_bytes: weights.bytes,
      mapped_bytes: ready.shared_mapped_bytes - mapped_before_bytes,
      anonymous_growth_bytes,
      kv_bytes,
      read_bytes: disk === null ? ready.read_bytes - before.memory.read_bytes : 0,
    }),
    private_growth_bytes: beyondArena(now) - beyondArena(before.memory),
    anonymous_growth_bytes,
    kv_bytes,
    host_copy: status === undefined ? null : `/proc/${process.pid}/fd/${status.fd}`,
  };
}

/** The model's files are named, the engine libraries loaded: what a standby process and its worker have. */
async function prepare(wish: StartWish): Promise<Scene> {
  const { manifest, header_path } = asModel(await readCheckpoint(wish.checkpoint));
  const library = NativeLibrary.open(wish.library, await runtimeLoader());
  library.warmEngine(wish.engine_libraries);
  const params = {
    kind: "SLLM_ENGINE_LLAMA",
    library_dir: wish.engine_libraries,
    header_path,
    weights_bytes: BigInt(manifest.weights.bytes),
    context_tokens: wish.context_tokens,
    slots: 1,
    batch_tokens: 512,
    threads: wish.threads,
    queue: 8,
    echo_token_us: 0,
  } as const;
  return { wish, manifest, library, params, mapped_before_bytes: processMemory().shared_mapped_bytes };
}

async function fromDisk(scene: Scene): Promise<StartOutcome[]> {
  const { wish, manifest, library, params } = scene;
  const { weights_path } = await readCheckpoint(wish.checkpoint);
  const { bytes: weights_bytes, chunk_bytes, chunks } = manifest.weights;
  const chunk_digests = BigUint64Array.from(chunks, (chunk) => BigInt(`0x${chunk.xxh3}`));
  const store = await readyStore(library, weights_bytes);
  const mapped_before_bytes = processMemory().shared_mapped_bytes;
  const before = beforeStart();
  const load = store.load({ weights_path, weights_bytes, chunk_bytes, chunk_digests });
  const host_copy = `/proc/${process.pid}/fd/${store.status(load).fd}`;
  const engine = library.createEngine({ ...params, weights_path: host_copy });
  return [
    outcomeOf({ from: "standby", engine, before, disk: { store, load } }, { ...scene, mapped_before_bytes }),
  ];
}

function fromHost(scene: Scene, host_copy: string): StartOutcome[] {
  const before = beforeStart();
  const engine = scene.library.createEngine({ ...scene.params, weights_path: host_copy });
  return [outcomeOf({ from: "standby", engine, before, disk: null }, scene)];
}

function fromSkeleton(scene: Scene, host_copy: string): StartOutcome[] {
  const engine = scene.library.buildEngine({ ...scene.params, weights_path: "" });
  const attach = (from: StartState) => {
    const before = beforeStart();
    engine.attach(host_copy);
    return outcomeOf({ from, engine, before, disk: null }, scene);
  };
  const outcomes = [attach("skeleton")];
  engine.park({ keep_weights: true });
  outcomes.push(attach("parked"));
  engine.park({ keep_weights: false });
  outcomes.push(attach("parked_unmapped"));
  return outcomes;
}

if (import.meta.main) {
  const wish = JSON.parse(process.argv[2] ?? "") as StartWish;
  const scene = await prepare(wish);
  const { host_copy, has_skeleton } = wish;
  const outcomes =
    host_copy === null ? await fromDisk(scene) : (has_skeleton ? fromSkeleton : fromHost)(scene, host_copy);
  process.stdout.write(`${JSON.stringify(outcomes)}\n`);
  // The host copy lives as long as this process.
  for await (const _ of process.stdin);
  process.exit(0);
}
