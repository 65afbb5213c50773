/** Generated models: the engine accepts every architecture and type, and computes something with each of them. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { runtimeLoader } from "../../native/bun-ffi-helpers/load.ts";
import {
  type NativeEngine,
  NativeLibrary,
  type NativeStore,
  newDrainBuffers,
} from "../../native/bun-ffi-helpers/native.ts";
import { eventKind } from "../../native/bun-ffi-helpers/sllm-structs.ts";
import { defaultNativePaths } from "../../worker/checkpoints/import/native-paths.ts";
import { type ConvertResult, convertGguf } from "../../worker/checkpoints/import.ts";
import { architectures } from "../models/generator/architectures.ts";
import { weightTypes } from "../models/generator/random-blocks.ts";
import { makeModel, parseSize } from "../models/make-model.ts";

const paths = defaultNativePaths();
const tokens = 8;
let folder = "";
let native: NativeLibrary;
let store: NativeStore;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "sllm-random-"));
  native = NativeLibrary.open(paths.library, await runtimeLoader());
  store = native.createStore();
});
afterAll(async () => {
  store[Symbol.dispose]();
  await rm(folder, { recursive: true });
});

const prompts = ["ROMEO:\n", "Good morrow", "the king", "O", "What, ho!", "and"];

/** Loads a checkpoint and gives the greedy continuations of the prompts, or their vectors where it embeds. */
function answers({ directory, manifest }: ConvertResult): number[][] {
  const { bytes, chunk_bytes, chunks } = manifest.weights;
  const load = store.load({
    weights_path: path.join(directory, "weights.bin"),
    weights_bytes: bytes,
    chunk_bytes,
    chunk_digests: BigUint64Array.from(chunks, (chunk) => BigInt(`0x${chunk.xxh3}`)),
  });
  try {
    using engine = native.createEngine({
      kind: "SLLM_ENGINE_LLAMA",
      library_dir: paths.engine_libraries,
      header_path: path.join(directory, "header.gguf"),
      weights_path: `/proc/self/fd/${store.status(load).fd}`,
      weights_bytes: BigInt(bytes),
      context_tokens: 64,
      slots: 1,
      batch_tokens: 64,
      threads: 1,
      queue: 4,
      echo_token_us: 0,
    });
    const answer = engine.info().embedding_values > 0 ? embed : generate;
    return prompts.map((prompt, i) => answer(engine, i + 1, prompt));
  } finally {
    store.release(load);
  }
}

function generate(engine: NativeEngine, request: number, text: string): number[] {
  const prompt = engine.tokenize(text, { add_special: true, parse_special: false });
  const greedy = { temperature: 0, top_k: 0, top_p: 1, min_p: 0, seed: 1n, stop: [] };
  engine.submit({ request, prompt, max_tokens: tokens, ignore_eos: true, ...greedy });
  return found(engine);
}

function embed(engine: NativeEngine, request: number, text: string): number[] {
  const prompt = engine.tokenize(text, { add_special: true, parse_special: false });
  engine.embed({ request, prompt, dimensions: 0 });
  return found(engine);
}

/** The tokens or the values of the vector of the one request that runs. */
function found(engine: NativeEngine): number[] {
  const buffers = newDrainBuffers(64);
  const values: number[] = [];
  for (let waits = 0; waits < 200; waits++) {
    engine.wait(100_000);
    for (const event of engine.drain(buffers)) {
      if (event.kind === eventKind.SLLM_EVENT_TOKEN) values.push(event.token);
      if (event.kind === eventKind.SLLM_EVENT_VECTOR)
        values.push(...new Float32Array(event.vector.slice().buffer));
      if (event.kind === eventKind.SLLM_EVENT_ERROR) throw new Error(event.text);
      if (event.kind === eventKind.SLLM_EVENT_DONE) return values;
    }
  }
  throw new Error(`the request did not end; ${values.length} values came`);
}

describe("a random model", () => {
  const all = architectures.flatMap((architecture) => weightTypes.map((type) => ({ architecture, type })));
  // Every type with one architecture, every architecture with one float and one block type.
  const chosen = all.filter((c) => c.architecture === "llama" || c.type === "f16" || c.type === "q4_k");

  test.each(chosen)("of $architecture in $type runs, and its answer depends on the prompt", async (c) => {
    const out = path.join(folder, `${c.architecture}-${c.type}.gguf`);
    const model = await makeModel({ ...c, size_bytes: 6_000_000, out });
    const converted = await convertGguf({ source: out, store_dir: path.join(folder, "store") });
    expect(converted.manifest.model).toMatchObject({ parameters: model.parameters, layers: model.layers });
    const found = answers(converted);
    const values = c.architecture === "bert" ? converted.manifest.model.embedding : tokens;
    for (const answer of found) {
      expect(answer).toHaveLength(values);
      expect(answer.every(Number.isFinite)).toBe(true);
    }
    // From logits that are not finite the same token is chosen whatever the prompt.
    expect(new Set(found.map(([first]) => first)).size).toBeGreaterThan(1);
  });

  test("has bytes that follow from its wish alone", async () => {
    const wish = { architecture: "llama", type: "q6_k", size_bytes: 3_000_000 } as const;
    const names = ["a", "b", "c"].map((name) => path.join(folder, `${name}.gguf`));
    const [a = "", b = "", c = ""] = names;
    for (const out of [a, b]) await makeModel({ ...wish, out });
    await makeModel({ ...wish, out: c, seed: 2 });
    expect(await readFile(a)).toEqual(await readFile(b));
    expect(await readFile(c)).not.toEqual(await readFile(a));
  });

  test.each([
    ["llama", "f16", 20_000_000],
    ["llama", "q4_k", 60_000_000],
    ["mixtral", "q8_0", 60_000_000],
    ["gemma3", "bf16", 40_000_000],
  ] as const)("of %s in %s comes near the wanted %p bytes", async (architecture, type, size_bytes) => {
    const out = path.join(folder, "size.gguf");
    await makeModel({ architecture, type, size_bytes, out });
    const { size } = await stat(out);
    expect(Math.abs(size / size_bytes - 1)).toBeLessThan(0.1);
  });

  test("may have a synthetic vocabulary of any size and a tied output", async () => {
    const out = path.join(folder, "synthetic.gguf");
    await makeModel({
      architecture: "llama",
      type: "f16",
      size_bytes: 8_000_000,
      out,
      vocabulary: 5000,
      tied: true,
    });
    const converted = await convertGguf({ source: out, store_dir: path.join(folder, "store") });
    expect(converted.manifest.model.vocabulary_tokens).toBe(5000);
    expect(converted.manifest.tensors.some((tensor) => tensor.name === "output.weight")).toBe(false);
    expect(answers(converted)[0]).toHaveLength(tokens);
  });
});

test.each([
  ["4096", 4096],
  ["1GB", 1e9],
  ["1.5GiB", 1.5 * 2 ** 30],
  ["500M", 5e8],
  ["2kib", 2048],
])("the size %s means %p bytes", (text, bytes) => {
  expect(parseSize(text)).toBe(bytes);
});
