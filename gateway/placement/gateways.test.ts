import { expect, test } from "bun:test";
import { limits } from "../../schema/limits.ts";
import { ManualClock } from "../../test/support/manual-clock.ts";
import { MemoryStateStore } from "../../test/support/memory-state-store.ts";
import { Gateways } from "./gateways.ts";

const log = { info: () => {}, warn: () => {}, error: () => {} };
const [first, second] = ["g-00000000000000aa", "g-00000000000000bb"];

function two() {
  const clock = new ManualClock();
  const store = new MemoryStateStore(clock);
  const of = (gateway_id: string) => new Gateways({ store, clock, gateway_id, log });
  const gateways = { first: of(first), second: of(second) };
  const turn = async (who: Gateways) => who.keep((await store.changes()).leases);
  return { clock, store, gateways, turn };
}

test("a gateway lives while its beats go on, and is gone a lease after the last one", async () => {
  const { clock, gateways, turn } = two();
  for (let i = 0; i < 10; i++) {
    await turn(gateways.second);
    await turn(gateways.first);
    expect(gateways.first.isAlive(second)).toBe(true);
    await clock.advance(limits.leader_renewal_ms);
  }
  expect(gateways.first.alive()).toEqual([first, second]);
  await turn(gateways.first);
  await clock.advance(limits.leader_lease_ms);
  await turn(gateways.first);
  expect(gateways.first.isAlive(second)).toBe(false);
  expect(gateways.first.alive()).toEqual([first]);
  expect(gateways.first.isAlive(first)).toBe(true);
});

test("one that says goodbye is gone at once, one without a lease only after a while", async () => {
  const { clock, gateways, turn } = two();
  await turn(gateways.second);
  await turn(gateways.first);
  await gateways.second.release();
  await turn(gateways.first);
  expect(gateways.first.isAlive(second)).toBe(false);
  expect(gateways.first.isAlive("g-00000000000000cc")).toBe(true);
  await clock.advance(limits.leader_lease_ms);
  expect(gateways.first.isAlive("g-00000000000000cc")).toBe(false);
});

test("while the database is away nobody is taken for gone", async () => {
  const { clock, gateways, turn } = two();
  await turn(gateways.second);
  await turn(gateways.first);
  await clock.advance(limits.leader_lease_ms - 1);
  gateways.first.reset();
  await clock.advance(limits.leader_lease_ms);
  expect(gateways.first.isAlive(second)).toBe(true);
});
