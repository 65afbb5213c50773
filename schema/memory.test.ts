import { expect, test } from "bun:test";
import { limits } from "./limits.ts";
import { instanceMemoryBytes } from "./memory.ts";

const model = { embedding: 256, vocabulary_tokens: 1024, kv_bytes_per_token: 512 };

test("an instance is booked with its weights, KV cache, compute buffers and process", () => {
  const compute = 512 * (16 * 256 + 1024) * 4;
  expect(instanceMemoryBytes(model, 1_000_000, 256, 4)).toBe(
    1_000_000 + 4 * 256 * 512 + compute + limits.engine_overhead_bytes,
  );
});

test("a slot more costs the KV cache of one context", () => {
  const one = instanceMemoryBytes(model, 0, 2048, 1);
  expect(instanceMemoryBytes(model, 0, 2048, 2) - one).toBe(2048 * 512);
});
