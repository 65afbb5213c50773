/** Old records go, a bounded number at a time; what is young or lives stays. */
import { expect, test } from "bun:test";
import { makeHeartbeat, newGenerationId } from "../../support/cluster-facts.ts";
import { created, type Fixture, liveInstance, startInstance, wantedInstance } from "./fixture.ts";

const hour_ms = 3_600_000;
const many = { older_than_ms: 0, replay_ms: 0, limit: 100_000 };

export function retentionContract(fixture: Fixture): void {
  test("records are kept until they are old enough", async () => {
    const { store } = fixture();
    const generation_id = newGenerationId();
    await store.insertGenerations([{ generation_id, model_id: "m", created_at_ms: Date.now() }]);
    await store.forget({ older_than_ms: hour_ms, replay_ms: hour_ms, limit: 100_000 });
    expect(await store.getGeneration(generation_id)).not.toBeNull();
    await Bun.sleep(5);
    expect(await store.forget(many)).toBeGreaterThan(0);
    expect(await store.getGeneration(generation_id)).toBeNull();
    expect(await store.listEvents({ entity_id: generation_id, limit: 10 })).toEqual([]);
    expect(await store.forget(many)).toBe(0);
  });

  test("of each kind at most the limit goes, the oldest first", async () => {
    const { store } = fixture();
    await Bun.sleep(5);
    await store.forget(many);
    const ids = Array.from({ length: 5 }, () => newGenerationId());
    const begin_ms = Date.now() - hour_ms;
    for (const [i, generation_id] of ids.entries()) {
      await store.insertGenerations([{ generation_id, model_id: "m", created_at_ms: begin_ms + i }]);
    }
    await Bun.sleep(5);
    expect(await store.forget({ older_than_ms: 0, replay_ms: 0, limit: 2 })).toBe(4);
    const left = await Promise.all(ids.map((id) => store.getGeneration(id)));
    expect(left.map((row) => row !== null)).toEqual([false, false, true, true, true]);
  });

  test("instances that live stay however old they are, ended ones go", async () => {
    const { store } = fixture();
    const { model, worker, instance } = await startInstance(store);
    const other = created(await store.createInstance(wantedInstance(model, worker, { expected_live: 1 })));
    await store.moveInstance({
      instance_id: other.instance_id,
      from: ["loading"],
      to: "gone",
      reason: "test",
    });
    await Bun.sleep(5);
    await store.forget(many);
    expect(await liveInstance(store, instance.instance_id)).toBeDefined();
    expect((await store.endedInstances(1_000)).map((row) => row.instance_id)).not.toContain(
      other.instance_id,
    );
    await store.heartbeat(makeHeartbeat(worker, 1, { state: "gone" }));
  });
}
