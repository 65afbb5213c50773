/** Leases: workers that stay silent become lost with what ran on them, and of many gateways one leads. */
import { expect, test } from "bun:test";
import type { LastReport, StateStore } from "../../../gateway/ports.ts";
import {
  makeHeartbeat,
  makeInstanceReport,
  makeRegisterRequest,
  newIncarnation,
} from "../../support/cluster-facts.ts";
import {
  created,
  deploy,
  type Fixture,
  history,
  liveInstance,
  reservedBytes,
  startInstance,
  wantedInstance,
  workerRow,
} from "./fixture.ts";

async function lastReport(store: StateStore, worker: { worker_id: string }): Promise<LastReport> {
  const row = await workerRow(store, worker);
  if (row === undefined) throw new Error("the worker is not known");
  return row;
}

export function leaseContract(fixture: Fixture): void {
  test("a worker that has not reported since it was seen is lost, with its instances", async () => {
    const { store } = fixture();
    const { model, worker, instance } = await startInstance(store);
    expect(await store.expireWorkers([await lastReport(store, worker)])).toEqual([worker.worker_id]);
    expect((await workerRow(store, worker))?.state).toBe("lost");
    expect(await liveInstance(store, instance.instance_id)).toBeUndefined();
    expect(await reservedBytes(store, worker)).toBe(0);
    expect(await history(store, "instance", instance.instance_id)).toEqual([
      "null -> loading (created)",
      "loading -> failed (worker_lost)",
    ]);
    expect(await store.expireWorkers([await lastReport(store, worker)])).toEqual([]);
    expect(await store.createInstance(wantedInstance(model, worker))).toEqual({
      ok: false,
      reason: "worker_not_ready",
    });
  });

  test("a report that came meanwhile keeps the lease, and so does a new registration", async () => {
    const { store } = fixture();
    const { worker, instance } = await startInstance(store);
    const seen = await lastReport(store, worker);
    await store.heartbeat(makeHeartbeat(worker, 0));
    expect(await store.expireWorkers([seen])).toEqual([]);
    const later = await lastReport(store, worker);
    await store.registerWorker({ ...worker, again: true });
    expect(await store.expireWorkers([later])).toEqual([]);
    expect(await liveInstance(store, instance.instance_id)).toBeDefined();
    const before = await lastReport(store, worker);
    await store.registerWorker({ ...worker, incarnation: newIncarnation() });
    expect(await store.expireWorkers([before])).toEqual([]);
    expect((await workerRow(store, worker))?.state).toBe("ready");
  });

  test("a draining worker has a lease too, one that said goodbye has none", async () => {
    const { store } = fixture();
    const worker = makeRegisterRequest({ state: "draining" });
    await store.registerWorker(worker);
    expect(await store.expireWorkers([await lastReport(store, worker)])).toEqual([worker.worker_id]);
    await store.heartbeat(makeHeartbeat(worker, 1, { state: "draining" }));
    expect(await history(store, "worker", worker.worker_id)).toEqual([
      "null -> draining (registered)",
      "draining -> lost (lease_expired)",
      "lost -> draining (reported)",
    ]);
    await store.heartbeat(makeHeartbeat(worker, 2, { state: "gone" }));
    expect(await store.expireWorkers([await lastReport(store, worker)])).toEqual([]);
  });

  test("a lost worker that reports again is ready, and releases what was failed meanwhile", async () => {
    const { store } = fixture();
    const model = await deploy(store);
    const worker = makeRegisterRequest();
    await store.registerWorker(worker);
    const instance = created(await store.createInstance(wantedInstance(model, worker)));
    await store.expireWorkers([await lastReport(store, worker)]);
    const report = makeHeartbeat(worker, 0, { instances: [makeInstanceReport(instance.instance_id)] });
    expect(await store.heartbeat(report)).toEqual({
      known: true,
      release: [instance.instance_id],
      deployed: [],
    });
    expect((await workerRow(store, worker))?.state).toBe("ready");
    created(await store.createInstance(wantedInstance(model, worker)));
    expect(await reservedBytes(store, worker)).toBe(400);
    await store.heartbeat(makeHeartbeat(worker, 1, { state: "gone" }));
  });

  const leaseOf = async (store: StateStore, name: string) =>
    (await store.changes(null)).leases.find((lease) => lease.name === name) ?? null;

  test("of many gateways that want a lease one gets it, and it shows up in reads", async () => {
    const { store } = fixture();
    const name = `lease-${newIncarnation()}`;
    const holders = Array.from({ length: 10 }, (_, i) => `g-${i}`);
    const results = await Promise.all(holders.map((holder) => store.holdLease(name, holder, null)));
    const [won, ...others] = results.filter((lease) => lease !== null);
    expect(others).toEqual([]);
    expect(await leaseOf(store, name)).toMatchObject({ holder: won?.holder ?? "", epoch: 1, beat: 1 });
  });

  test("a lease is renewed in its epoch; whoever takes it over begins the next", async () => {
    const { store } = fixture();
    const name = `lease-${newIncarnation()}`;
    const first = await store.holdLease(name, "g-1", null);
    const renewed = await store.holdLease(name, "g-1", first);
    expect(renewed).toMatchObject({ holder: "g-1", epoch: 1, beat: 2 });
    // Who saw it before the renewal is too late.
    expect(await store.holdLease(name, "g-2", first)).toBeNull();
    const rivals = ["g-2", "g-3", "g-4"].map((holder) => store.holdLease(name, holder, renewed));
    const [taken, ...others] = (await Promise.all(rivals)).filter((lease) => lease !== null);
    expect(others).toEqual([]);
    expect(taken).toMatchObject({ epoch: 2, beat: 3 });
    expect(await store.holdLease(name, "g-1", renewed)).toBeNull();
  });

  test("a lease is given back by its holder only", async () => {
    const { store } = fixture();
    const name = `lease-${newIncarnation()}`;
    const first = await store.holdLease(name, "g-1", null);
    const second = await store.holdLease(name, "g-2", first);
    if (first === null || second === null) throw new Error("nobody else wants it");
    await store.releaseLease(first);
    expect((await leaseOf(store, name))?.holder).toBe("g-2");
    await store.releaseLease(second);
    const free = await leaseOf(store, name);
    expect(free).toMatchObject({ holder: "", epoch: 2 });
    expect(await store.holdLease(name, "g-3", free)).toMatchObject({ holder: "g-3", epoch: 3 });
  });
}
