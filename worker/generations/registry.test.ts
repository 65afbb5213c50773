import { beforeEach, expect, test } from "bun:test";
import type { GenerateRequest, GenerationEvent } from "../../schema/cluster/generate.ts";
import type { InstanceState } from "../../schema/vocab.ts";
import { ManualClock } from "../../test/support/manual-clock.ts";
import { GenerationRegistry, type GenerationTarget } from "./registry.ts";

const generation_id = "ab".repeat(16);
const request = (epoch: number, id = generation_id): GenerateRequest => ({
  protocol_version: 1,
  generation_id: id,
  epoch,
  instance_id: "i-0000000000000001",
  prompt: { kind: "text", text: "x" },
  sampling: { temperature: 0, top_k: 0, top_p: 1, min_p: 0, seed: "1" },
  stop: [],
  max_tokens: 4,
  ignore_eos: false,
});
const cancelled: GenerationEvent = { type: "error", error: { code: "cancelled", message: "" } };

let state: InstanceState;
let listeners: Map<number, (event: GenerationEvent) => void>;
let cancels: number[];
let registry: GenerationRegistry;

beforeEach(() => {
  state = "ready";
  listeners = new Map();
  cancels = [];
  const instance: GenerationTarget = {
    get state() {
      return state;
    },
    error: { code: "checkpoint_invalid", message: "weights.bin" },
    submit: (_, listener) => {
      listeners.set(listeners.size + 1, listener);
      return listeners.size;
    },
    cancel: (number) => cancels.push(number),
  };
  registry = new GenerationRegistry({ findInstance: () => instance, clock: new ManualClock() });
});

test("the engine's events reach the reader", async () => {
  const generation = registry.start(request(1));
  listeners.get(1)?.({ type: "started", prompt_tokens: 2 });
  expect(await generation.next()).toEqual({ type: "started", prompt_tokens: 2 });
});

test("an older epoch is refused, running or ended", () => {
  registry.start(request(3));
  expect(() => registry.start(request(2))).toThrow("epoch 3 has been seen");
  listeners.get(1)?.(cancelled);
  expect(() => registry.start(request(2))).toThrow("epoch 3 has been seen");
});

test("the same epoch does not run twice", () => {
  registry.start(request(1));
  expect(() => registry.start(request(1))).toThrow("started here before");
});

test("a new owner takes a running generation over", async () => {
  const old = registry.start(request(1));
  const taken = registry.start(request(2));
  expect(await old.next()).toMatchObject({ type: "error", error: { code: "stale_epoch" } });
  expect(cancels).toEqual([1]);
  listeners.get(1)?.(cancelled);
  expect(registry.cancel(generation_id)).toBe(true);
  expect(cancels).toEqual([1, 2]);
  expect(taken.hasEnded).toBe(false);
});

test("a cancel is true while it runs, false afterwards and for strangers", () => {
  registry.start(request(1));
  expect(registry.cancel(generation_id)).toBe(true);
  expect(registry.cancel(generation_id)).toBe(true);
  listeners.get(1)?.(cancelled);
  expect(registry.cancel(generation_id)).toBe(false);
  expect(registry.cancel("0".repeat(32))).toBe(false);
});

test("an instance that is not ready refuses with its reason, and the same epoch may try again", () => {
  const expected = {
    loading: "model_loading",
    failed: "checkpoint_invalid",
    draining: "state_conflict",
  } as const;
  for (const [name, code] of Object.entries(expected)) {
    state = name as keyof typeof expected;
    expect(() => registry.start(request(1))).toThrow(expect.objectContaining({ code }));
  }
  state = "ready";
  expect(registry.start(request(1)).epoch).toBe(1);
});
