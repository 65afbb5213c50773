/** The rounds of one model: in each, every subject does the same work, one after the other, on a model it has loaded. */
import type { NativeLibrary, NativeStore } from "../../../native/bun-ffi-helpers/native.ts";
import { openNativeLibrary } from "../../support/native.ts";
import type { Case } from "../load/cases.ts";
import { BareLoop } from "./bare-loop.ts";
import { type FfiCost, ffiCost } from "./ffi-cost.ts";
import { OurEngine, type OurOptions } from "./our-engine.ts";
import { ServerSubject } from "./server.ts";
import { perSecond, type Subject } from "./subject.ts";

export const subjectNames = [
  "ours",
  "ours_repacked",
  "bare",
  "bare_repacked",
  "llama_server",
  "llama_server_repacked",
] as const;
export type SubjectName = (typeof subjectNames)[number];

/** Answers that run together. */
export const streamCounts = [1, 4, 8] as const;
export const streamsMax = 8;

const context_tokens = 512;
const answerTokens = 48;
const promptWords = 40;
const shortWords = 3;

/** One measurement, as it goes into the raw results. */
export interface EngineRun {
  readonly model: string;
  readonly round: number;
  readonly subject: SubjectName;
  /** 0: the prompt alone. */
  readonly streams: number;
  readonly tps: number;
}

export interface JavaScriptCost {
  readonly ffi: FfiCost;
  /** Processor time of the engine process's JavaScript main thread over the time that 8 answers took. */
  readonly main_thread_busy: number;
}

export interface EngineOptions {
  readonly rounds: number;
  readonly threads: number;
  /** Null: without the peer. */
  readonly server: string | null;
  readonly record: (run: EngineRun) => void;
}

export async function measureEngine(
  of: Case,
  options: EngineOptions,
): Promise<{ readonly runs: readonly EngineRun[]; readonly javascript: JavaScriptCost }> {
  await using parts = new AsyncDisposableStack();
  const library = await openNativeLibrary();
  const copy = hostCopy(library, of);
  parts.defer(() => copy.store[Symbol.dispose]());
  const { threads } = options;
  const common = { threads, streams: streamsMax, context_tokens };
  const ours: OurOptions = { of, weights_path: copy.path, repacked: false, ...common };
  const engine = await OurEngine.start(ours);
  parts.defer(() => engine.close());
  const subjects: [SubjectName, Subject][] = [["ours", engine]];
  const add = async (name: SubjectName, subject: Promise<Subject>) => {
    const started = await subject;
    parts.defer(() => started.close());
    subjects.push([name, started]);
  };
  await add("ours_repacked", OurEngine.start({ ...ours, repacked: true }));
  for (const repacked of [false, true]) {
    const wish = { gguf: of.gguf, repacked, ...common };
    await add(repacked ? "bare_repacked" : "bare", BareLoop.start(wish));
    if (options.server === null) continue;
    const name = repacked ? "llama_server_repacked" : "llama_server";
    await add(name, ServerSubject.start({ program: options.server, ...wish }));
  }
  const runs: EngineRun[] = [];
  let busy = Number.NaN;
  for (let round = 0; round < options.rounds; round++) {
    for (const streams of [0, ...streamCounts]) {
      const text = words(round * 10 + streams, streams === 0 ? promptWords : shortWords);
      for (const [subject, it] of subjects) {
        const before = { at: performance.now(), ran: engine.mainThreadMs() };
        const speed = streams === 0 ? await it.prefill(text) : await it.decode(streams, answerTokens, text);
        if (subject === "ours" && streams === streamsMax) {
          busy = (engine.mainThreadMs() - before.ran) / (performance.now() - before.at);
        }
        const run = { model: of.name, round, subject, streams, tps: perSecond(speed) };
        runs.push(run);
        options.record(run);
      }
    }
  }
  await engine.close();
  return { runs, javascript: { ffi: ffiCost(library, ours, words(0, shortWords)), main_thread_busy: busy } };
}

/** The weights in shared memory of this process, as a worker holds them. */
function hostCopy(library: NativeLibrary, of: Case): { readonly store: NativeStore; readonly path: string } {
  const { bytes: weights_bytes, chunk_bytes, chunks } = of.manifest.weights;
  const chunk_digests = BigUint64Array.from(chunks, (chunk) => BigInt(`0x${chunk.xxh3}`));
  const store = library.createStore({ arena_bytes: (chunks.length + 1) * chunk_bytes });
  const load = store.load({ weights_path: of.weights, weights_bytes, chunk_bytes, chunk_digests });
  return { store, path: `/proc/${process.pid}/fd/${store.status(load).fd}` };
}

/** Words that nobody has seen before, from the number alone. */
function words(seed: number, count: number): string {
  let state = (seed + 1) * 2_654_435_761;
  const next = (below: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const word = () => String.fromCharCode(...Array.from({ length: 4 }, () => 97 + next(26)));
  return Array.from({ length: count }, word).join(" ");
}
