/**
 * A WorkerClient that does what a test tells it: loads that end when told, generations that stream a script.
 * Records every call. Keeps to the port's promises about signals and errors.
 */
import type { WorkerAddress, WorkerClient } from "../../gateway/ports.ts";
import type { AttachEvent, AttachQuery } from "../../schema/cluster/attach.ts";
import type { EmbedRequest } from "../../schema/cluster/embed.ts";
import type { GenerateRequest, GenerationEvent } from "../../schema/cluster/generate.ts";
import type { LoadEvent, LoadRequest, LoadTimings } from "../../schema/cluster/instances.ts";
import type { LoadsQuery, LoadTrace } from "../../schema/cluster/loads.ts";
import type { RunningGeneration } from "../../schema/cluster/moves.ts";
import type { PreloadOutcome } from "../../schema/cluster/preloads.ts";
import { SllmError } from "../../schema/error.ts";

export const someLoadTimings: LoadTimings = {
  process_start_ms: 30,
  disk_read_ms: 40,
  disk_read_bytes: 4_096,
  resume_ms: 0,
  model_build_ms: 20,
  total_ms: 100,
};

/** What a generation does; awaiting inside it is how a script waits for the test. */
export type GenerationScript = (
  request: GenerateRequest,
  signal: AbortSignal,
) => AsyncIterable<GenerationEvent> | Iterable<GenerationEvent>;
export type LoadScript = (
  request: LoadRequest,
  signal: AbortSignal,
) => AsyncIterable<LoadEvent> | Iterable<LoadEvent>;

export class ScriptedWorker implements WorkerClient {
  readonly loads: LoadRequest[] = [];
  readonly unloads: { readonly instance_id: string; readonly if_idle: boolean }[] = [];
  readonly generations: { readonly worker_id: string; readonly request: GenerateRequest }[] = [];
  readonly embeddings: EmbedRequest[] = [];
  readonly parks: string[] = [];
  readonly preloads: { readonly worker_id: string; readonly checkpoint: string }[] = [];
  readonly cancels: string[] = [];
  readonly attaches: { worker_id: string; generation_id: string; query: AttachQuery }[] = [];
  /** Generations whose stream is open. */
  open = 0;

  onLoad: LoadScript = () => [{ type: "ready", timings: someLoadTimings }];
  onGenerate: GenerationScript = () => say(["Hello", " world"]);
  onEmbed: (request: EmbedRequest) => Iterable<GenerationEvent> = () => [];
  onUnload: (instance_id: string) => Promise<void> = () => Promise.resolve();
  onPark: (instance_id: string) => Promise<void> = () => Promise.resolve();
  onPreload: (worker_id: string, checkpoint: string) => PreloadOutcome = () => "reading";
  onAttach: (
    generation_id: string,
    query: AttachQuery,
    worker_id: string,
  ) => AsyncIterable<AttachEvent> | Iterable<AttachEvent> = () => {
    throw new SllmError("not_found", "The worker does not know the generation.");
  };
  onCancel: (generation_id: string) => boolean = () => true;

  async *load(_worker: WorkerAddress, request: LoadRequest, signal: AbortSignal): AsyncGenerator<LoadEvent> {
    this.loads.push(request);
    yield* untilAborted(this.onLoad(request, signal), signal);
  }

  async unload(_worker: WorkerAddress, instance_id: string, options: { if_idle: boolean }): Promise<void> {
    this.unloads.push({ instance_id, ...options });
    await this.onUnload(instance_id);
  }

  async park(_worker: WorkerAddress, instance_id: string): Promise<void> {
    this.parks.push(instance_id);
    await this.onPark(instance_id);
  }

  preload({ worker_id }: WorkerAddress, checkpoint: string): Promise<PreloadOutcome> {
    this.preloads.push({ worker_id, checkpoint });
    return Promise.resolve(this.onPreload(worker_id, checkpoint));
  }

  async *generate(
    worker: WorkerAddress,
    request: GenerateRequest,
    signal: AbortSignal,
  ): AsyncGenerator<GenerationEvent> {
    this.generations.push({ worker_id: worker.worker_id, request });
    this.open += 1;
    try {
      yield* untilAborted(this.onGenerate(request, signal), signal);
    } finally {
      this.open -= 1;
    }
  }

  async *embed(
    _worker: WorkerAddress,
    request: EmbedRequest,
    signal: AbortSignal,
  ): AsyncGenerator<GenerationEvent> {
    this.embeddings.push(request);
    yield* untilAborted(this.onEmbed(request), signal);
  }

  /** What the workers say about their last loads, by their ids; one that is not here does not answer. */
  readonly traces = new Map<string, LoadTrace[]>();

  async loadTraces({ worker_id }: WorkerAddress, { limit }: LoadsQuery): Promise<LoadTrace[]> {
    return (this.traces.get(worker_id) ?? unreachable()).slice(0, limit);
  }

  async *attach(
    { worker_id }: WorkerAddress,
    generation_id: string,
    query: AttachQuery,
    signal: AbortSignal,
  ): AsyncGenerator<AttachEvent> {
    this.attaches.push({ worker_id, generation_id, query });
    yield* untilAborted(this.onAttach(generation_id, query, worker_id), signal);
  }

  /** What the workers say that runs, by their ids. They refuse to move it: tests of moves have workers of their own. */
  readonly running = new Map<string, RunningGeneration[]>();

  listGenerations({ worker_id }: WorkerAddress): Promise<RunningGeneration[]> {
    return Promise.resolve(this.running.get(worker_id) ?? []);
  }

  drain(): Promise<number> {
    return Promise.resolve(0);
  }

  findGeneration(): Promise<null> {
    return Promise.resolve(null);
  }

  moveGeneration(): AsyncIterable<never> {
    return unreachable();
  }

  async handOver(): Promise<never> {
    return unreachable();
  }

  async goOn(): Promise<never> {
    return unreachable();
  }

  cancel(_worker: WorkerAddress, generation_id: string): Promise<{ cancelled: boolean }> {
    this.cancels.push(generation_id);
    return Promise.resolve({ cancelled: this.onCancel(generation_id) });
  }
}

/** Ends silently when the signal aborts, as the port says, whatever the script is waiting for. */
async function* untilAborted<T>(
  script: AsyncIterable<T> | Iterable<T>,
  signal: AbortSignal,
): AsyncGenerator<T> {
  const iterator =
    Symbol.asyncIterator in script ? script[Symbol.asyncIterator]() : script[Symbol.iterator]();
  const aborted = new Promise<null>((resolve) => {
    if (signal.aborted) resolve(null);
    signal.addEventListener("abort", () => resolve(null), { once: true });
  });
  for (;;) {
    const next = await Promise.race([Promise.resolve(iterator.next()), aborted]);
    if (next === null || next.done === true) return;
    yield next.value;
  }
}

/** The events of a whole generation: one `tokens` event per text, then `done`. */
export function* say(texts: readonly string[], held = ""): Generator<GenerationEvent> {
  yield { type: "started", prompt_tokens: 5 };
  for (const [i, text] of texts.entries()) yield tokens(i, [text]);
  yield done(texts.length, held);
}

export function tokens(first_index: number, texts: readonly string[]): GenerationEvent {
  return {
    type: "tokens",
    choice: 0,
    first_index,
    tokens: texts.map((text, i) => ({ token: first_index + i, text })),
  };
}

export function done(completion_tokens: number, text = ""): GenerationEvent {
  return {
    type: "done",
    finish_reason: "stop",
    text,
    prompt_tokens: 5,
    cached_tokens: 3,
    completion_tokens,
    timings: { queue_ms: 0, prefill_ms: 3, decode_ms: 9 },
  };
}

/** A script that fails as a lost connection does. */
export function unreachable(): never {
  throw new SllmError("worker_unavailable", "The worker does not answer.");
}

/** A gate that scripts wait at until the test opens it. */
export function gate(): { readonly passed: Promise<void>; open(): void } {
  let open = () => {};
  const passed = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { passed, open: () => open() };
}
