import { expect, test } from "bun:test";
import type { Skeleton } from "./engine-process.ts";
import { LikelyModels } from "./likely-models.ts";

const hourMs = 3_600_000;

const skeleton = (name: string): Skeleton => ({
  op: "build",
  engine: "llama",
  header_path: `/data/${name}/header.gguf`,
  weights_bytes: 4096,
  context_tokens: 64,
  slots: 1,
  threads: 1,
});

const [a, b, c] = [skeleton("a"), skeleton("b"), skeleton("c")];

test("what was started more often comes first, of equals what was started last", () => {
  const models = new LikelyModels();
  for (const one of [a, b, c, b, c]) models.used(one, 1_000);
  models.used(b, 1_001);
  expect(models.without([])).toEqual([b, c, a]);
});

test("an old habit fades: one start now is worth more than three some hours ago", () => {
  const models = new LikelyModels();
  for (let i = 0; i < 3; i++) models.used(a, 0);
  models.used(b, hourMs / 2);
  expect(models.without([])).toEqual([a, b]);
  models.used(b, 4 * hourMs);
  expect(models.without([])).toEqual([b, a]);
});

test("what runs already is left out, other settings of it are not", () => {
  const models = new LikelyModels();
  for (const one of [a, b, { ...a, slots: 2 }]) models.used(one, 0);
  expect(models.without([{ ...a }, b])).toEqual([{ ...a, slots: 2 }]);
});
