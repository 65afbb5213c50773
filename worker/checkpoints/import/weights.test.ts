import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { MemorySource } from "../../../test/support/gguf.ts";
import type { SourceTensor } from "./gguf-splits.ts";
import { tensorTypeByName } from "./gguf-types.ts";
import type { PlacedTensor } from "./gguf-writer.ts";
import { streamWeights, type WeightsStream } from "./weights.ts";

const chunkBytes = 4096;
const content = new Uint8Array(64 * 1024).map((_, i) => (i * 7919) >>> 3);
const type = tensorTypeByName("I8");

/** Tensors of these sizes one behind the other, read from scattered places of the source. */
function place(sizes: readonly number[]): PlacedTensor<SourceTensor>[] {
  const source = new MemorySource(content);
  let offset = 0;
  return sizes.map((bytes, i) => {
    const tensor = {
      name: `t${i}`,
      type,
      shape: [bytes],
      elements: bytes,
      bytes,
      file_offset: i * 13,
      source,
    };
    const placed = { tensor, offset };
    offset = Math.ceil((offset + bytes) / 128) * 128;
    return placed;
  });
}

function expectedWeights(
  placed: readonly PlacedTensor<SourceTensor>[],
  bytes: number,
): Uint8Array<ArrayBuffer> {
  const weights = new Uint8Array(bytes);
  for (const { tensor, offset } of placed) {
    weights.set(content.subarray(tensor.file_offset, tensor.file_offset + tensor.bytes), offset);
  }
  return weights;
}

async function run(placed: readonly PlacedTensor<SourceTensor>[], changes: Partial<WeightsStream> = {}) {
  const last = placed.at(-1);
  const end = last === undefined ? 0 : last.offset + last.tensor.bytes;
  const weights_bytes = Math.ceil(end / 4096) * 4096;
  const written = new Uint8Array(weights_bytes).fill(0xee);
  const entries = await streamWeights({
    placed,
    weights_bytes,
    chunk_bytes: chunkBytes,
    xxh3: (bytes) => BigInt(bytes.length),
    sink: async (_, offset, bytes) => written.set(bytes, offset),
    ...changes,
  });
  return { entries, written, weights_bytes };
}

describe("streaming weights", () => {
  test.each([
    ["one tensor smaller than a chunk", [10]],
    ["tensors that end on borders of chunks", [4096, 8192, 4096]],
    ["tensors over several chunks", [10_000, 1, 20_000]],
    ["many small tensors in a chunk", Array.from({ length: 60 }, (_, i) => i + 1)],
  ])("puts %s in place with zeros between", async (_, sizes) => {
    const placed = place(sizes);
    const { entries, written, weights_bytes } = await run(placed);
    const expected = expectedWeights(placed, weights_bytes);
    expect(written).toEqual(expected);
    const digests = Array.from({ length: weights_bytes / chunkBytes }, (_, i) =>
      createHash("sha256")
        .update(expected.subarray(i * chunkBytes, (i + 1) * chunkBytes))
        .digest("hex"),
    );
    expect(entries.map((entry) => entry.sha256)).toEqual(digests);
    expect(new Set(entries.map((entry) => entry.xxh3))).toEqual(new Set(["0000000000001000"]));
  });

  test("reports growing progress up to the whole", async () => {
    const reports: number[] = [];
    const { weights_bytes } = await run(place([30_000]), { on_progress: (done) => reports.push(done) });
    expect(reports).toEqual(reports.toSorted((a, b) => a - b));
    expect(reports.at(-1)).toBe(weights_bytes);
  });

  test("stops at the first failure and waits for what is in flight", async () => {
    let running = 0;
    let started = 0;
    const sink = async (index: number) => {
      running++;
      started++;
      await new Promise((resolve) => setTimeout(resolve, 1));
      running--;
      if (index === 2) throw new Error("disk full");
    };
    await expect(run(place([60_000]), { sink })).rejects.toThrow("disk full");
    expect(running).toBe(0);
    expect(started).toBeLessThan(15);
  });

  test("ends as cancelled when its signal is aborted", async () => {
    const abort = new AbortController();
    const sink = async () => abort.abort();
    const failure = run(place([60_000]), { sink, signal: abort.signal });
    await expect(failure).rejects.toMatchObject({ code: "cancelled" });
  });
});
