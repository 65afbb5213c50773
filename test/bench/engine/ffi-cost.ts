/** What the border between JavaScript and the library costs per token: an engine in this process, drained as the pump does. */
import {
  type NativeEngine,
  type NativeLibrary,
  newDrainBuffers,
} from "../../../native/bun-ffi-helpers/native.ts";
import { eventKind } from "../../../native/bun-ffi-helpers/sllm-structs.ts";
import { engineLibrariesPath } from "../../support/native.ts";
import { quantile } from "../statistics.ts";
import type { OurOptions } from "./our-engine.ts";

export interface FfiCost {
  /** Microseconds per token event: a drain (the call, events decoded, text copied) over the events it brought. */
  readonly p50_us: number;
  readonly p99_us: number;
  readonly events: number;
}

const answerTokens = 128;

/** Blocks this thread while the engine answers as many requests as it has streams. */
export function ffiCost(library: NativeLibrary, options: OurOptions, text: string): FfiCost {
  const { of, weights_path, threads, streams, context_tokens } = options;
  using engine = library.createEngine({
    kind: "SLLM_ENGINE_LLAMA",
    library_dir: engineLibrariesPath,
    header_path: of.header,
    weights_path,
    weights_bytes: BigInt(of.manifest.weights.bytes),
    context_tokens,
    slots: streams,
    batch_tokens: 512,
    threads,
    queue: streams,
    echo_token_us: 0,
  });
  const prompt = engine.tokenize(text, { add_special: true, parse_special: false });
  const sampling = { seed: 1n, temperature: 0, top_k: 0, top_p: 1, min_p: 0, stop: [] };
  for (let request = 1; request <= streams; request++) {
    engine.submit({ request, prompt, max_tokens: answerTokens, ignore_eos: true, ...sampling });
  }
  const costs = drainAll(engine, streams);
  return { p50_us: quantile(costs, 0.5), p99_us: quantile(costs, 0.99), events: costs.length };
}

function drainAll(engine: NativeEngine, requests: number): number[] {
  const buffers = newDrainBuffers(256);
  const costs: number[] = [];
  let unfinished = requests;
  while (unfinished > 0) {
    engine.wait(1_000_000);
    const started = performance.now();
    const events = engine.drain(buffers);
    const each = ((performance.now() - started) * 1000) / events.length;
    for (const { kind, text } of events) {
      if (kind === eventKind.SLLM_EVENT_TOKEN) costs.push(each);
      if (kind === eventKind.SLLM_EVENT_ERROR) throw new Error(`the engine failed: ${text}`);
      if (kind === eventKind.SLLM_EVENT_DONE) unfinished--;
    }
  }
  return costs;
}
