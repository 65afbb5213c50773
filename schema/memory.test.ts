import { expect, test } from "bun:test";
import { limits } from "./limits.ts";
import { instanceMemoryBytes } from "./memory.ts";

const model = { embedding: 256, vocabulary_tokens: 1024, kv_bytes_per_token: 512 };

test("an instance is booked with its weights, KV cache, compute buffers and process", () => {
  const compute = 512 * (16 * 256 + 1024) * 4;
  expect(instanceMemoryBytes(model, 1_000_000, { context_tokens: 256, slots: 4 })).toBe(
    1_000_000 + 4 * 256 * 512 + compute + limits.engine_overhead_bytes,
  );
});

test("a slot more costs the KV cache of one context", () => {
  const one = instanceMemoryBytes(model, 0, { context_tokens: 2048, slots: 1 });
  expect(instanceMemoryBytes(model, 0, { context_tokens: 2048, slots: 2 }) - one).toBe(2048 * 512);
});

test("a KV cache of given size costs what it holds, however many slots share it", () => {
  const shared = (slots: number) =>
    instanceMemoryBytes(model, 0, { context_tokens: 2048, slots, kv_tokens: 3000 });
  expect(shared(8)).toBe(shared(2));
  expect(shared(2) - instanceMemoryBytes(model, 0, { context_tokens: 2048, slots: 1 })).toBe(
    (3000 - 2048) * 512,
  );
});

test("a deterministic instance costs a spare slot, and cells in whole steps", () => {
  const bytes = instanceMemoryBytes(model, 0, { context_tokens: 256, slots: 3, deterministic: true });
  expect(bytes - instanceMemoryBytes(model, 0, { context_tokens: 256, slots: 1 })).toBe(
    (4 * 512 - 256) * 512,
  );
});

test("a model that embeds holds one step of whole inputs, however many slots it has", () => {
  const encoder = { ...model, pooling: "mean" as const };
  const bytes = instanceMemoryBytes(encoder, 0, { context_tokens: 2048, slots: 1 });
  expect(bytes).toBe(2048 * (16 * 256 * 4 + 512) + limits.engine_overhead_bytes);
  expect(instanceMemoryBytes(encoder, 0, { context_tokens: 2048, slots: 8 })).toBe(bytes);
});
