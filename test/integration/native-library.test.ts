/** The native library through both loaders: the same program under Bun and under Deno. */
import { expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { runtimeLoader } from "../../native/bun-ffi-helpers/load.ts";
import { NativeLibrary, type NativeStore, SllmNativeError } from "../../native/bun-ffi-helpers/native.ts";
import { eventually } from "../support/eventually.ts";
import { denoPath, nativeLibraryPath, openNativeLibrary } from "../support/native.ts";
import { repositoryRoot } from "../support/processes.ts";

const program = path.join(repositoryRoot, "test/support/native-echo-program.ts");
const runtimes = {
  bun: [process.execPath, program],
  deno: [denoPath, "run", "--quiet", "--allow-all", program],
} as const;

test.each(Object.keys(runtimes) as (keyof typeof runtimes)[])(
  "the echo engine answers through the loader of %s",
  (runtime) => {
    const [command, ...args] = runtimes[runtime];
    const run = spawnSync(command, [...args, nativeLibraryPath], { encoding: "utf8" });
    expect(run.stderr).toBe("");
    expect(JSON.parse(run.stdout)).toMatchObject({
      kinds: [1, 2, 3],
      text: "grüße, 世界 grüße, 世界",
      tokens: 32,
      request: Number.MAX_SAFE_INTEGER,
      context_tokens: 128,
      slots: 2,
      cancelled: false,
      refusal: { status_name: "SLLM_E_INVALID_ARGUMENT", said: true },
      parked: { status_name: "SLLM_E_WRONG_STATE", said: true },
    });
  },
);

test("both runtimes see the same answer, text and digests included", () => {
  const outputs = Object.values(runtimes).map(([command, ...args]) =>
    spawnSync(command, [...args, nativeLibraryPath], { encoding: "utf8" }).stdout.trim(),
  );
  expect(outputs[0]).not.toBe("");
  expect(outputs[0]).toBe(outputs[1]);
});

test("a file that is no library is refused with its path", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "sllm-native-"));
  const file = path.join(folder, "libsllm.so");
  try {
    writeFileSync(file, "not a library");
    const loader = await runtimeLoader();
    expect(() => NativeLibrary.open(file, loader)).toThrow(`${file} cannot be used`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

const pageBytes = 4096;

async function loadedState(store: NativeStore, weights: Uint8Array, digests: BigUint64Array) {
  const folder = mkdtempSync(path.join(tmpdir(), "sllm-store-"));
  try {
    const weights_path = path.join(folder, "weights.bin");
    writeFileSync(weights_path, weights);
    const load = store.load({
      weights_path,
      weights_bytes: weights.length,
      chunk_bytes: pageBytes,
      chunk_digests: digests,
    });
    return await eventually("the read ends", () => {
      const status = store.status(load);
      return status.state !== "loading" && status;
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

test("the store reads what the digests promise and refuses what they do not, naming the offset", async () => {
  const library = await openNativeLibrary();
  using store = library.createStore();
  const weights = new Uint8Array(3 * pageBytes).map((_, i) => i % 251);
  const digests = BigUint64Array.from([0, 1, 2], (i) =>
    library.digestXxh3(weights.subarray(i * pageBytes, (i + 1) * pageBytes)),
  );
  expect(await loadedState(store, weights, digests)).toMatchObject({
    state: "ready",
    failure: null,
    bytes_done: weights.length,
  });
  weights[pageBytes + 5] = 255;
  const { state, failure } = await loadedState(store, weights, digests);
  expect(state).toBe("failed");
  expect(failure?.status_name).toBe("SLLM_E_CORRUPT");
  expect(failure?.message).toMatch(new RegExp(`weights\\.bin.*offset ${pageBytes}\\b`));
});

test("a load that does not exist and a store that was disposed of are errors", async () => {
  const library = await openNativeLibrary();
  const store = library.createStore();
  expect(() => store.status(999n)).toThrow(SllmNativeError);
  store[Symbol.dispose]();
  store[Symbol.dispose]();
  expect(() => store.status(1n)).toThrow("disposed");
});
