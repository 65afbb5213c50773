import { beforeEach, expect, test } from "bun:test";
import type { GenerateRequest, GenerationEvent, TokensEvent } from "../../schema/cluster/generate.ts";
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
const worker_id = "w-0000000000000001";
const cancelled: GenerationEvent = { type: "error", error: { code: "cancelled", message: "" } };

const someLoad: GenerationTarget["request"] = {
  ...{ protocol_version: 1, instance_id: "i-0123456789abcdef", model_id: "m", checkpoint: "c".repeat(64) },
  ...{ device_id: "cpu", context_tokens: 1_024, slots: 4 },
};
let state: InstanceState;
let listeners: Map<number, (event: GenerationEvent) => void>;
let cancels: number[];
let registry: GenerationRegistry;
let clock: ManualClock;

beforeEach(() => {
  state = "ready";
  clock = new ManualClock();
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
    request: someLoad,
    hold: () => undefined,
    extend: () => undefined,
    followHeld: () => undefined,
    kv: null,
    moveKv: () => Promise.resolve(null),
  };
  registry = new GenerationRegistry({ worker_id, findInstance: () => instance, clock });
});

test("the engine's events reach the reader", async () => {
  const reader = registry.start(request(1)).readRun();
  listeners.get(1)?.({ type: "started", prompt_tokens: 2 });
  expect(await reader.next()).toEqual({ type: "started", prompt_tokens: 2 });
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
  const old = registry.start(request(1)).readRun();
  const taken = registry.start(request(2));
  expect(await old.next()).toMatchObject({ type: "error", error: { code: "stale_generation" } });
  expect(cancels).toEqual([1]);
  listeners.get(1)?.(cancelled);
  expect(registry.cancel(generation_id).cancelled).toBe(true);
  expect(cancels).toEqual([1, 2]);
  expect(taken.hasEnded).toBe(false);
});

test("a cancel is true while it runs, false afterwards and for strangers", () => {
  registry.start(request(1));
  expect(registry.cancel(generation_id).cancelled).toBe(true);
  expect(registry.cancel(generation_id).cancelled).toBe(true);
  listeners.get(1)?.(cancelled);
  expect(registry.cancel(generation_id).cancelled).toBe(false);
  expect(registry.cancel("0".repeat(32)).cancelled).toBe(false);
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

const told = (first_index: number, ...texts: string[]): TokensEvent => ({
  type: "tokens",
  choice: 0,
  first_index,
  tokens: texts.map((text, i) => ({ token: first_index + i, text })),
});
async function take<T>(reader: { next(): Promise<T | null> }, count: number): Promise<(T | null)[]> {
  const taken: (T | null)[] = [];
  for (let i = 0; i < count; i++) taken.push(await reader.next());
  return taken;
}

test("a later reader gets the record and everything from its token on, beside the first one", async () => {
  const first = registry.start({ ...request(1), origin: undefined }).readRun();
  const say = listeners.get(1);
  say?.({ type: "started", prompt_tokens: 2, prompt: [7, 8] });
  say?.(told(0, "a"));
  say?.(told(1, "b", "c"));
  const second = registry.attach(generation_id, { from: 2 });
  say?.(told(3, "d"));
  say?.(cancelled);
  expect(await take(first, 4)).toEqual([
    { type: "started", prompt_tokens: 2 },
    told(0, "a", "b", "c", "d"),
    cancelled,
    null,
  ]);
  const hops = [{ worker_id, epoch: 1, first_index: 0 }];
  const record = { generation_id, epoch: 1, owner: null, prompt: [7, 8], hops, first_index: 0 };
  const [head, ...rest] = await take(second, 5);
  expect(head).toMatchObject({ type: "record", record });
  expect(rest).toEqual([told(2, "c"), told(3, "d"), cancelled, null]);
});

test("an owner that attaches raises the epoch: what comes with an earlier one is refused from then on", () => {
  registry.start(request(1));
  expect(registry.attach(generation_id, { from: 0, epoch: 3, owner: "g-0000000000000001" })).toBeDefined();
  expect(registry.find(generation_id).record()).toMatchObject({ epoch: 3, owner: "g-0000000000000001" });
  for (const stale of [
    () => registry.start(request(2)),
    () => registry.attach(generation_id, { from: 0, epoch: 2 }),
    () => registry.cancel(generation_id, { epoch: 2 }),
  ]) {
    expect(stale).toThrow(expect.objectContaining({ code: "stale_generation" }));
  }
  expect(cancels).toEqual([]);
  expect(registry.attach(generation_id, { from: 0 })).toBeDefined();
});

test("a fence keeps out what comes late, and lets its own epoch begin", () => {
  expect(registry.cancel(generation_id, { epoch: 3 })).toEqual({
    generation_id,
    cancelled: false,
  });
  expect(() => registry.start(request(2))).toThrow("epoch 3 has been seen");
  expect(registry.start(request(3)).epoch).toBe(3);
  expect(() => registry.start(request(3))).toThrow("started here before");
});

test("a fence that comes after its own epoch has begun leaves that alone; a later one ends it", () => {
  registry.start(request(3));
  expect(registry.cancel(generation_id, { epoch: 3 }).cancelled).toBe(false);
  expect(registry.cancel(generation_id, { epoch: 4 }).cancelled).toBe(true);
});

test("a cancel that heeds readers leaves alone what another one reads", () => {
  const run = registry.start(request(1));
  const first = run.readRun();
  registry.attach(generation_id, { from: 0 });
  expect(registry.cancel(generation_id, { unless_read: "1" }).cancelled).toBe(false);
  first.close();
  expect(registry.cancel(generation_id, { unless_read: "1" }).cancelled).toBe(true);
});

test("a generation that goes on from elsewhere tells all of it to whoever attaches, with the way it came", async () => {
  const before = { worker_id: "w-0000000000000009", epoch: 1, first_index: 0 };
  const run = registry.start({
    ...request(2),
    resume: { prompt: [7], output: [0, 1, 2] },
    history: { hops: [before], told: [told(1, "b", "c")] },
  });
  const own = run.readRun();
  listeners.get(1)?.(told(3, "d"));
  expect(await own.next()).toEqual(told(3, "d"));
  const [head, ...rest] = await take(registry.attach(generation_id, { from: 1 }), 2);
  const hops = [before, { worker_id, epoch: 2, first_index: 3 }];
  expect(head).toMatchObject({ record: { prompt: [7], hops, first_index: 1 } });
  expect(rest).toEqual([told(1, "b", "c", "d")]);
  for (const from of [0, 5]) {
    expect(() => registry.attach(generation_id, { from })).toThrow(
      expect.objectContaining({ code: "generation_lost" }),
    );
  }
});

test("a history that is not the resumed output is refused", () => {
  const resume = { prompt: [7], output: [0, 1, 2] };
  for (const events of [
    [told(0, "a", "b")],
    [told(0, "a"), told(2, "c")],
    [{ ...told(0, "a"), first_index: 2 }],
  ]) {
    expect(() => registry.start({ ...request(1), resume, history: { hops: [], told: events } })).toThrow(
      expect.objectContaining({ code: "invalid_request", param: "history" }),
    );
  }
});

test("readers of a generation that moved are told where, also those that come later", async () => {
  const run = registry.start(request(1));
  const reader = run.readRun();
  listeners.get(1)?.(told(0, "a"));
  const to = {
    epoch: 2,
    worker_id: "w-0000000000000002",
    url: "http://127.0.0.1:1",
    instance_id: "i-0000000000000002",
  };
  run.moveTo(to);
  listeners.get(1)?.(cancelled);
  const moved = { type: "moved", to } as const;
  expect(await take(reader, 3)).toEqual([told(0, "a"), moved, null]);
  expect((await take(registry.attach(generation_id, { from: 1 }), 3)).slice(1)).toEqual([moved, null]);
  expect(registry.cancel(generation_id)).toEqual({ generation_id, cancelled: false, moved: to });
  expect(cancels).toEqual([1]);
});

test("the log of an ended generation stays for the grace time, then it is not known", async () => {
  const reader = registry.start({ ...request(1), grace_ms: 60_000 }).readRun();
  listeners.get(1)?.(cancelled);
  await clock.advance(120_000);
  reader.close();
  await clock.advance(59_999);
  registry.attach(generation_id, { from: 0 }).close();
  await clock.advance(59_999);
  expect(registry.find(generation_id).hasEnded).toBe(true);
  await clock.advance(1);
  expect(() => registry.attach(generation_id, { from: 0 })).toThrow(
    expect.objectContaining({ code: "not_found" }),
  );
  expect(() => registry.start(request(1))).toThrow("started here before");
});
