/** Sharing what was learned: gateways hear of each other, and nothing is lost on the way to the store. */
import { expect, test } from "bun:test";
import { limits } from "../../schema/limits.ts";
import { ManualClock } from "../../test/support/manual-clock.ts";
import { MemoryStateStore } from "../../test/support/memory-state-store.ts";
import { keyOf, LearnedEstimates } from "../placement/estimates/learned-estimates.ts";
import { EstimateSync } from "./estimate-sync.ts";

test("two gateways learn from each other, and nothing is lost while the database is away", async () => {
  const clock = new ManualClock();
  const store = new MemoryStateStore(clock);
  const [one, two] = [new LearnedEstimates(), new LearnedEstimates()];
  const [syncOne, syncTwo] = [new EstimateSync(one, store), new EstimateSync(two, store)];
  const key = keyOf("service", { model_id: "m" });
  await syncOne.sync(0);
  one.observe(key, { value: 10 });
  store.isAway = true;
  expect(syncOne.sync(limits.estimate_sync_ms)).rejects.toThrow("does not answer");
  one.observe(key, { value: 30 });
  store.isAway = false;
  two.observe(key, { value: 50 });
  await syncTwo.sync(0);
  await syncOne.sync(limits.estimate_sync_ms + 1);
  await syncTwo.sync(2 * limits.estimate_sync_ms);
  for (const estimates of [one, two]) expect(estimates.model("m").service_ms).toBe(30);
  expect(await store.estimates()).toMatchObject([{ observations: 3 }]);
});

test("writes and reads keep their distance", async () => {
  const store = new MemoryStateStore(new ManualClock());
  const sync = new EstimateSync(new LearnedEstimates(), store);
  for (let at = 0; at < 2 * limits.estimate_sync_ms; at += 250) await sync.sync(at);
  expect(store.calls.get("estimates")).toBe(2);
});
