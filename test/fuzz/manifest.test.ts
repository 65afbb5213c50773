/** Manifests from outside: whatever the text, it is parsed into something within its bounds or refused. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { type AnyManifest, manifest as manifestSchema } from "../../schema/checkpoint/manifest.ts";
import { SllmError } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import { digestOf } from "../../worker/checkpoints/import/digest.ts";
import { parseManifest } from "../../worker/checkpoints/import/verify.ts";
import { checkProperty } from "../support/property.ts";
import { tinyContent } from "../support/tiny-checkpoint.ts";

/** The manifest, or null when it is refused with a checkpoint code; anything else fails the test. */
function parsed(text: string): AnyManifest | null {
  try {
    return parseManifest(text);
  } catch (error) {
    if (error instanceof SllmError && error.code.startsWith("checkpoint_")) return null;
    throw error;
  }
}

/** What readers rely on without looking again. */
function expectBounds(manifest: AnyManifest): void {
  const { bytes, chunk_bytes, chunks } = manifest.weights;
  expect(bytes % limits.file_align_bytes).toBe(0);
  expect(chunk_bytes % limits.file_align_bytes).toBe(0);
  expect(bytes).toBeLessThanOrEqual(chunks.length * chunk_bytes);
  expect(bytes).toBeGreaterThan((chunks.length - 1) * chunk_bytes);
  let end = 0;
  for (const tensor of manifest.tensors) {
    expect(tensor.offset % limits.tensor_align_bytes).toBe(0);
    expect(tensor.offset).toBeGreaterThanOrEqual(end);
    end = tensor.offset + tensor.bytes;
  }
  expect(end).toBeLessThanOrEqual(bytes);
  expect(manifest.digest).toBe(digestOf(manifest));
}

type Path = readonly (string | number)[];

/** Paths to every value inside a JSON value. */
function pathsOf(value: unknown, path: Path = []): Path[] {
  if (typeof value !== "object" || value === null) return [path];
  return [path, ...Object.entries(value).flatMap(([key, inner]) => pathsOf(inner, [...path, key]))];
}

/** A copy with one value replaced, or removed when the replacement is undefined. */
function withValue(value: unknown, [key, ...rest]: Path, replacement: unknown): unknown {
  if (key === undefined) return replacement;
  const copy = Array.isArray(value) ? [...value] : { ...(value as Record<string, unknown>) };
  const record = copy as Record<string | number, unknown>;
  record[key] = withValue(record[key], rest, replacement);
  return copy;
}

const { manifest } = tinyContent();
const oddNumbers = [0, -1, 0.5, 4095, 4096, 8192, 2 ** 31, 2 ** 53, 2 ** 53 - 1, 1e308, Number.NaN];
const oddValue = fc.oneof(
  fc.constantFrom<unknown>(...oddNumbers, null, undefined, "", "a".repeat(64), "0".repeat(16), [], {}, true),
  fc.jsonValue(),
);

test("any text is refused or within bounds", () => {
  checkProperty(fc.oneof(fc.string(), fc.json()), (text) => {
    const found = parsed(text);
    if (found !== null) expectBounds(found);
  });
});

test("a manifest with changed values is refused or within bounds, its digest made right again or not", () => {
  const change = fc.record({ path: fc.constantFrom(...pathsOf(manifest)), value: oddValue });
  const changes = fc.record({ list: fc.array(change, { minLength: 1, maxLength: 3 }), repair: fc.boolean() });
  let accepted = 0;
  checkProperty(
    changes,
    ({ list, repair }) => {
      let changed: unknown = manifest;
      for (const { path, value } of list) changed = withValue(changed, path, value);
      const whole = repair ? manifestSchema.safeParse(changed) : null;
      const text = JSON.stringify(whole?.success ? { ...whole.data, digest: digestOf(whole.data) } : changed);
      const found = parsed(text ?? "");
      if (found === null) return;
      accepted++;
      expectBounds(found);
    },
    2000,
  );
  expect(accepted).toBeGreaterThan(0);
});

test("a manifest that is within bounds survives writing and reading", () => {
  const tensor = fc.record({
    name: fc.string({ minLength: 1, maxLength: 63 }),
    blocks: fc.integer({ min: 0, max: 6 }),
    bytes: fc.integer({ min: 1, max: 128 }),
  });
  checkProperty(fc.array(tensor, { minLength: 1, maxLength: 8 }), (list) => {
    let offset = 0;
    const tensors = list.map(({ name, blocks, bytes }) => {
      const entry = { name, dtype: "I8", shape: [bytes], layer: 0, offset, bytes };
      offset += 128 * (1 + blocks);
      return entry;
    });
    const candidate = { ...manifest, tensors };
    expect(parsed(JSON.stringify(candidate))).toEqual(candidate);
  });
});
