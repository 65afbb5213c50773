/** Silent workers become lost, and what ran on them failed. Leases of these tests lie before all others. */
import { expect, test } from "bun:test";
import { makeHeartbeat, makeInstanceReport, makeRegisterRequest } from "../../support/cluster-facts.ts";
import {
  created,
  deploy,
  type Fixture,
  history,
  liveInstance,
  reservedBytes,
  wantedInstance,
  workerRow,
} from "./fixture.ts";

const lease_ms = 3_500;
const start_ms = 1_000_000;

export function leaseContract(fixture: Fixture): void {
  test("a worker that is silent for longer than its lease is lost, with its instances", async () => {
    const { store } = fixture();
    const model = await deploy(store);
    const worker = makeRegisterRequest();
    await store.registerWorker(worker, start_ms);
    const instance = created(await store.createInstance(wantedInstance(model, worker)));
    expect(await store.expireWorkers(start_ms + lease_ms, lease_ms)).toEqual([]);
    expect(await liveInstance(store, instance.instance_id)).toBeDefined();

    expect(await store.expireWorkers(start_ms + lease_ms + 1, lease_ms)).toEqual([worker.worker_id]);
    expect((await workerRow(store, worker))?.state).toBe("lost");
    expect(await liveInstance(store, instance.instance_id)).toBeUndefined();
    expect(await reservedBytes(store, worker)).toBe(0);
    expect(await history(store, "instance", instance.instance_id)).toEqual([
      "null -> loading (created)",
      "loading -> failed (worker_lost)",
    ]);
    expect(await store.expireWorkers(start_ms + lease_ms + 1, lease_ms)).toEqual([]);
    expect(await store.createInstance(wantedInstance(model, worker))).toEqual({
      ok: false,
      reason: "worker_not_ready",
    });
  });

  test("a heartbeat keeps the lease, also of a draining worker", async () => {
    const { store } = fixture();
    const worker = makeRegisterRequest({ state: "draining" });
    await store.registerWorker(worker, start_ms);
    await store.heartbeat(makeHeartbeat(worker, 0, { state: "draining" }), start_ms + 3_000);
    expect(await store.expireWorkers(start_ms + 3_000 + lease_ms, lease_ms)).toEqual([]);
    expect(await store.expireWorkers(start_ms + 3_001 + lease_ms, lease_ms)).toEqual([worker.worker_id]);
    await store.heartbeat(makeHeartbeat(worker, 1, { state: "draining" }), start_ms + 9_000);
    expect(await history(store, "worker", worker.worker_id)).toEqual([
      "null -> draining (registered)",
      "draining -> lost (lease_expired)",
      "lost -> draining (reported)",
    ]);
    await store.heartbeat(makeHeartbeat(worker, 2, { state: "gone" }), start_ms + 9_001);
    expect(await store.expireWorkers(start_ms + 99_000, lease_ms)).toEqual([]);
  });

  test("a lost worker that reports again is ready, and releases what was failed meanwhile", async () => {
    const { store } = fixture();
    const model = await deploy(store);
    const worker = makeRegisterRequest();
    await store.registerWorker(worker, start_ms);
    const instance = created(await store.createInstance(wantedInstance(model, worker)));
    await store.expireWorkers(start_ms + 10_000, lease_ms);
    const report = makeHeartbeat(worker, 0, { instances: [makeInstanceReport(instance.instance_id)] });
    expect(await store.heartbeat(report, start_ms + 10_001)).toEqual({
      known: true,
      release: [instance.instance_id],
      deployed: [],
    });
    expect((await workerRow(store, worker))?.state).toBe("ready");
    created(await store.createInstance(wantedInstance(model, worker)));
    expect(await reservedBytes(store, worker)).toBe(400);
    await store.heartbeat(makeHeartbeat(worker, 1, { state: "gone" }), start_ms + 10_002);
  });
}
