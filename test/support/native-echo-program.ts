/**
 * Runs the echo engine of the native library once and prints what came out as one line of JSON. A program of its own,
 * so that it can run under Bun and under Deno. Arguments: path of the library.
 */
import process from "node:process";
import { runtimeLoader } from "../../native/bun-ffi-helpers/load.ts";
import { NativeLibrary, newDrainBuffers, SllmNativeError } from "../../native/bun-ffi-helpers/native.ts";

const library = NativeLibrary.open(process.argv[2] ?? "", await runtimeLoader());
using engine = library.createEngine({
  kind: "SLLM_ENGINE_ECHO",
  library_dir: "",
  header_path: "",
  weights_path: "",
  weights_bytes: 0n,
  context_tokens: 128,
  slots: 2,
  batch_tokens: 0,
  threads: 1,
  queue: 0,
  echo_token_us: 0,
});

const prompt = engine.tokenize("grüße, 世界 ", { add_special: true, parse_special: true });
engine.submit({
  request: 9_007_199_254_740_991,
  prompt,
  max_tokens: 32,
  ignore_eos: true,
  seed: 2n ** 64n - 1n,
  temperature: 0,
  top_k: 0,
  top_p: 1,
  min_p: 0,
  stop: ["never", "this"],
});

const buffers = newDrainBuffers(4);
const kinds: number[] = [];
let text = "";
let tokens = 0;
let request = 0;
for (let ended = false; !ended; ) {
  engine.wait(100_000);
  for (const event of engine.drain(buffers)) {
    if (event.kind !== kinds.at(-1)) kinds.push(event.kind);
    if (event.kind === 2) tokens++;
    text += event.text;
    request = event.request;
    ended = event.kind >= 3;
  }
}

function refusal(prompt = new Int32Array(0)): unknown {
  try {
    engine.submit({
      request: 1,
      prompt,
      max_tokens: 1,
      ignore_eos: false,
      seed: 0n,
      temperature: 0,
      top_k: 0,
      top_p: 1,
      min_p: 0,
      stop: [],
    });
  } catch (error) {
    if (error instanceof SllmNativeError)
      return { status_name: error.status_name, said: error.message !== "" };
    throw error;
  }
  return null;
}

/** Requests are refused between a park and the next attach. */
function parkAndReturn(): unknown {
  engine.park({ keep_weights: true });
  const refused = refusal(Int32Array.of(104));
  engine.attach(null);
  return refused;
}

const digest = library.digestXxh3(new TextEncoder().encode("sllm")).toString(16);
const cancelled = engine.cancel(4_711);
const { context_tokens, slots } = engine.info();
const result = {
  kinds,
  text,
  tokens,
  request,
  context_tokens,
  slots,
  cancelled,
  digest,
  refusal: refusal(),
  parked: parkAndReturn(),
};
process.stdout.write(`${JSON.stringify(result)}\n`);
