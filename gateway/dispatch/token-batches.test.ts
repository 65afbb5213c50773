import { beforeEach, expect, test } from "bun:test";
import type { DoneEvent, GenerationSettings, TokensEvent } from "../../schema/cluster/generate.ts";
import { limits } from "../../schema/limits.ts";
import { ManualClock } from "../../test/support/manual-clock.ts";
import { MemoryStateStore } from "../../test/support/memory-state-store.ts";
import { advance, type Generation, newGeneration } from "./generation.ts";
import { TokenBatches } from "./token-batches.ts";
import { Told } from "./told.ts";

const generation_id = "ab".repeat(16);
const host = { worker_id: "w-0000000000000001", instance_id: "i-0000000000000001" };
const log = { info: () => {}, warn: () => {}, error: () => {} };
const settings: GenerationSettings = {
  prompt: { kind: "text", text: "x" },
  sampling: { temperature: 0, top_k: 0, top_p: 1, min_p: 0, seed: "1" },
  stop: [],
  max_tokens: 9,
  ignore_eos: false,
};
const done: DoneEvent = {
  ...{ type: "done", finish_reason: "stop", text: "", prompt_tokens: 1, completion_tokens: 3 },
  timings: { queue_ms: 0, prefill_ms: 0, decode_ms: 0 },
};
const told = (first_index: number, ...texts: string[]): TokensEvent => ({
  type: "tokens",
  choice: 0,
  first_index,
  tokens: texts.map((text, i) => ({ token: first_index + i, text })),
});

class Source {
  readonly told = new Told();
  state: Generation = newGeneration(generation_id, "m", 0);
  prompt: number[] | null = null;
  done: DoneEvent | null = null;
  stored_index = 0;
  rechecks = 0;

  run(): void {
    this.state = advance(this.state, { type: "sent", host, at_ms: 0, load: null });
    this.prompt = [7];
  }

  async recheck(): Promise<void> {
    this.rechecks += 1;
  }
}

let clock: ManualClock;
let store: MemoryStateStore;
let batches: TokenBatches;
let source: Source;

beforeEach(async () => {
  clock = new ManualClock();
  store = new MemoryStateStore(clock);
  batches = new TokenBatches({ store, clock, log });
  source = new Source();
  const row = { generation_id, model_id: "m", created_at_ms: 0, owner: "g-00000000000000aa", tenant: "t" };
  await store.beginGeneration({ ...row, resume_ms: 1_000, settings, idempotency: null });
  batches.follow(source);
});

const stored = async () => {
  const found = await store.getStored(generation_id);
  if (found === null) throw new Error("nothing is stored");
  return found;
};

test("what was told is stored within the time of a batch, each token once, with place, path and prompt", async () => {
  await clock.advance(limits.token_batch_ms);
  expect(store.calls.get("appendTokens")).toBeUndefined();
  source.run();
  source.told.add(told(0, "a"));
  await clock.advance(limits.token_batch_ms);
  source.told.add(told(1, "b"));
  source.told.add(told(2, "c"));
  await clock.advance(limits.token_batch_ms);
  await clock.advance(10 * limits.token_batch_ms);
  expect(store.calls.get("appendTokens")).toBe(2);
  const { row, record, events } = await stored();
  expect(events).toEqual([told(0, "a"), told(1, "b"), told(2, "c")]);
  expect(row).toMatchObject({ state: "running", ...host });
  expect(record).toMatchObject({
    prompt: [7],
    hops: [{ worker_id: host.worker_id, epoch: 1, first_index: 0 }],
  });
});

test("a database that is away gets everything when it is back, the end included", async () => {
  source.run();
  store.isAway = true;
  source.told.add(told(0, "a"));
  await clock.advance(5 * limits.token_batch_ms);
  source.told.add(told(1, "b", "c"));
  source.done = done;
  const finished = batches.finish(generation_id);
  await clock.advance(10_000);
  store.isAway = false;
  await clock.advance(limits.failover_pause_ms);
  await finished;
  const { record, events } = await stored();
  expect(events).toEqual([told(0, "a"), told(1, "b", "c")]);
  expect(record.done).toEqual(done);
});

test("who does not own it any more is told to look, and writes nothing", async () => {
  source.run();
  const wanted = { generation_id, model_id: "m", created_at_ms: 0, owner: "g-00000000000000bb" };
  await store.claimGeneration({ ...wanted, seen_epoch: 1, epoch: 2 });
  source.told.add(told(0, "a"));
  await clock.advance(limits.token_batch_ms);
  expect(source.rechecks).toBe(1);
  expect((await stored()).events).toEqual([]);
  source.state = { ...source.state, is_owner: false };
  await clock.advance(limits.token_batch_ms);
  expect(source.rechecks).toBe(1);
});

test("a new owner writes on after what the one before has written, however far it has read itself", async () => {
  const write = (event: TokensEvent) =>
    store.appendTokens([
      { generation_id, epoch: 1, ...host, hops: [], prompt: null, events: [event], done: null },
    ]);
  await write(told(0, "a"));
  const next = new Source();
  next.run();
  next.state = { ...next.state, is_owner: false };
  next.told.add(told(0, "a"));
  batches.follow(next);
  await write(told(1, "b"));
  for (const event of [told(1, "b"), told(2, "c")]) next.told.add(event);
  await clock.advance(limits.token_batch_ms);
  next.stored_index = 2;
  next.state = { ...next.state, is_owner: true };
  await clock.advance(limits.token_batch_ms);
  expect((await stored()).events).toEqual([told(0, "a"), told(1, "b"), told(2, "c")]);
});
