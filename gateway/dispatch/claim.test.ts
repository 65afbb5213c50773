import { beforeEach, expect, test } from "bun:test";
import { limits } from "../../schema/limits.ts";
import { ManualClock } from "../../test/support/manual-clock.ts";
import { MemoryStateStore } from "../../test/support/memory-state-store.ts";
import { type Claimed, claim } from "./claim.ts";
import { advance, foundGeneration, newGeneration } from "./generation.ts";

const generation_id = "ab".repeat(16);
const [mine, other] = ["g-00000000000000aa", "g-00000000000000bb"];
const host = { worker_id: "w-0000000000000001", instance_id: "i-0000000000000001" };
const elsewhere = { worker_id: "w-0000000000000002", instance_id: "i-0000000000000002" };
const seen = { generation_id, model_id: "m", created_at_ms: 0 };

let clock: ManualClock;
let store: MemoryStateStore;
let alive: Set<string>;

beforeEach(() => {
  clock = new ManualClock();
  store = new MemoryStateStore(clock);
  alive = new Set([mine, other]);
});

/** An owner whose worker is gone, or a reader of another gateway's generation. */
const owned = [
  { type: "sent", host, at_ms: 0, load: null },
  { type: "attempt_failed", takes_claim: true },
] as const;
const ownerState = () => owned.reduce(advance, newGeneration(generation_id, "m", 0));
const readerState = () => {
  const found = foundGeneration(generation_id, "m", 0, {
    at: { ...host, epoch: 1 },
    epoch: 1,
    next_index: 3,
  });
  return advance(found, { type: "attempt_failed", takes_claim: true });
};
const ask = (fields: Partial<Claimed> = {}, signal = new AbortController().signal) =>
  claim(
    { store, clock, gateway_id: mine, isAlive: (id) => alive.has(id) },
    {
      state: ownerState(),
      model_id: "m",
      isShared: true,
      isSuperseded: false,
      created_at_ms: 0,
      signal,
      ...fields,
    },
  );
const insert = (owner: string) => store.insertGenerations([{ ...seen, owner }]);
const take = (epoch: number, owner: string, at?: typeof host) =>
  store.claimGeneration({
    ...seen,
    seen_epoch: epoch - 1,
    epoch,
    owner,
    ...(at === undefined ? {} : { at }),
  });

test("an owner wins the next epoch at once, also where its row is not written yet", async () => {
  expect(await ask()).toEqual({ kind: "won", epoch: 2 });
  expect(await store.getGeneration(generation_id)).toMatchObject({ epoch: 2, owner: mine });
});

test("whose answer was lost has won all the same", async () => {
  await insert(mine);
  await take(2, mine);
  expect(await ask()).toEqual({ kind: "won", epoch: 2 });
});

test("who was beaten waits for the place of the new owner, and goes there", async () => {
  await insert(mine);
  await take(2, other);
  const outcome = ask();
  await clock.advance(5_000);
  await store.appendTokens([
    { generation_id, epoch: 2, ...elsewhere, hops: [], prompt: null, events: [], done: null },
  ]);
  await clock.advance(limits.owner_poll_ms);
  expect(await outcome).toEqual({ kind: "elsewhere", at: { ...elsewhere, epoch: 2 }, isOurs: false });
});

test("a planned move of what still is its own leads to the destination", async () => {
  await insert(mine);
  await take(2, mine, elsewhere);
  expect(await ask()).toEqual({ kind: "elsewhere", at: { ...elsewhere, epoch: 2 }, isOurs: true });
});

test("a reader leaves the claim to an owner that lives, and takes it from one that is gone", async () => {
  await insert(other);
  const outcome = ask({ state: readerState() });
  await clock.advance(limits.owner_patience_ms - 1_000);
  expect(await store.getGeneration(generation_id)).toMatchObject({ epoch: 1, owner: other });
  alive.delete(other);
  await clock.advance(limits.owner_poll_ms);
  expect(await outcome).toEqual({ kind: "won", epoch: 2 });
});

test("a generation that ended has no next owner", async () => {
  await insert(other);
  await store.moveGenerations([{ generation_id, from: ["queued"], to: "cancelled", reason: "test" }]);
  expect(await ask()).toEqual({ kind: "ended" });
});

test("a database that is away is waited for, unless nobody else can know the generation", async () => {
  store.isAway = true;
  expect(await ask({ isShared: false })).toEqual({ kind: "won", epoch: 2 });
  const outcome = ask();
  await clock.advance(60_000);
  store.isAway = false;
  await clock.advance(limits.owner_poll_ms);
  expect(await outcome).toEqual({ kind: "won", epoch: 2 });
  store.isAway = true;
  const leaving = new AbortController();
  const given = ask({}, leaving.signal);
  leaving.abort();
  await clock.advance(limits.owner_poll_ms);
  expect(await given).toEqual({ kind: "ended" });
});
