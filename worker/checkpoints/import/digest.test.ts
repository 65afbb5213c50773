import { expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { digestOf } from "./digest.ts";

const content = {
  header: { bytes: 4096, sha256: "a".repeat(64) },
  weights: {
    bytes: 20_480,
    chunk_bytes: 16_384,
    chunks: [{ sha256: "b".repeat(64) }, { sha256: "c".repeat(64) }],
  },
};

test("the digest is that of the text in the specification", () => {
  const lines = [
    "sllm-checkpoint 1",
    `header 4096 ${"a".repeat(64)}`,
    "weights 20480 16384",
    `chunk ${"b".repeat(64)}`,
    `chunk ${"c".repeat(64)}`,
    "",
  ];
  expect(digestOf(content)).toBe(createHash("sha256").update(lines.join("\n")).digest("hex"));
});

test("the digest changes with every part of the content", () => {
  const { header, weights } = content;
  const [first, second] = weights.chunks;
  if (first === undefined || second === undefined) throw new Error("two chunks");
  const others = [
    { header: { ...header, bytes: 4097 }, weights },
    { header: { ...header, sha256: "d".repeat(64) }, weights },
    { header, weights: { ...weights, bytes: 24_576 } },
    { header, weights: { ...weights, chunk_bytes: 20_480 } },
    { header, weights: { ...weights, chunks: [second, first] } },
    { header, weights: { ...weights, chunks: [first] } },
  ];
  const digests = new Set([content, ...others].map(digestOf));
  expect(digests.size).toBe(others.length + 1);
});
