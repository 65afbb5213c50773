/** Times the first token of one request, and makes requests that cost the same without sharing a prefix. */
import { type NativeEngine, newDrainBuffers } from "../../../native/bun-ffi-helpers/native.ts";
import { eventKind } from "../../../native/bun-ffi-helpers/sllm-structs.ts";

let requests = 0;

/** Milliseconds until the first token of the prompt. Throws when the engine fails. */
export function firstTokenMs(engine: NativeEngine, prompt: Int32Array): number {
  const request = ++requests;
  const started = performance.now();
  const sampling = { seed: 1n, temperature: 0, top_k: 0, top_p: 1, min_p: 0, stop: [] };
  engine.submit({ request, prompt, max_tokens: 1, ignore_eos: true, ...sampling });
  const buffers = newDrainBuffers(16);
  let first = Number.NaN;
  for (;;) {
    engine.wait(1_000_000);
    for (const event of engine.drain(buffers)) {
      if (event.kind === eventKind.SLLM_EVENT_TOKEN) first = performance.now() - started;
      if (event.kind === eventKind.SLLM_EVENT_ERROR) throw new Error(`the engine failed: ${event.text}`);
      if (event.kind === eventKind.SLLM_EVENT_DONE) return first;
    }
  }
}

/** As many tokens as the prompt has, each another one: nothing of an earlier answer can be used again. */
export function promptLike(prompt: Int32Array, variant: number, vocabularyTokens: number): Int32Array {
  return prompt.map((token) => (token + variant) % vocabularyTokens);
}
