/** Workers: registration, heartbeats with what they hold, leases, new incarnations. */
import { expect, test } from "bun:test";
import {
  cpuDevice,
  makeHeartbeat,
  makeInstanceReport,
  makePlacement,
  makeRegisterRequest,
  newDigest,
  newIncarnation,
  newInstanceId,
} from "../../support/cluster-facts.ts";
import {
  created,
  deploy,
  type Fixture,
  history,
  liveInstance,
  register,
  reservedBytes,
  startInstance,
  wantedInstance,
  workerRow,
} from "./fixture.ts";

export function workerContract(fixture: Fixture): void {
  test("a registered worker is seen with its devices and placements", async () => {
    const { store } = fixture();
    const placement = makePlacement();
    const worker = makeRegisterRequest({
      placements: [placement],
      devices: [
        { ...cpuDevice(2 ** 43), repacks: true },
        { device_id: "cuda:0", kind: "cuda", memory_bytes: 80 * 2 ** 30 },
      ],
    });
    await store.registerWorker(worker);
    const seen = await store.snapshot();
    const ofWorker = <R extends { worker_id: string }>(rows: readonly R[]) =>
      rows.filter((row) => row.worker_id === worker.worker_id);
    expect(ofWorker(seen.workers)).toMatchObject([
      {
        incarnation: worker.incarnation,
        state: "ready",
        url: worker.url,
        version: worker.version,
        last_heartbeat_at: expect.any(Date),
      },
    ]);
    expect(ofWorker(seen.devices)).toMatchObject([
      { device_id: "cpu", kind: "cpu", memory_bytes: 2 ** 43, reserved_bytes: 0, repacks: true },
      { device_id: "cuda:0", kind: "cuda", memory_bytes: 80 * 2 ** 30, reserved_bytes: 0, repacks: false },
    ]);
    expect(ofWorker(seen.placements)).toMatchObject([placement]);
    expect(await history(store, "worker", worker.worker_id)).toEqual(["null -> ready (registered)"]);
  });

  test("registering again changes nothing but url, version and devices", async () => {
    const { store } = fixture();
    const { model, worker, instance } = await startInstance(store);
    const again = { ...worker, url: "http://127.0.0.1:4001", version: "2", devices: [cpuDevice(2_000)] };
    await store.registerWorker(again);
    await store.registerWorker(again);
    const seen = await store.snapshot();
    expect(seen.workers.filter((row) => row.worker_id === worker.worker_id)).toMatchObject([
      { url: "http://127.0.0.1:4001", version: "2" },
    ]);
    expect(seen.devices.filter((row) => row.worker_id === worker.worker_id)).toMatchObject([
      { memory_bytes: 2_000, reserved_bytes: 400 },
    ]);
    expect(await liveInstance(store, instance.instance_id)).toMatchObject({ model_id: model.model_id });
    expect(await history(store, "worker", worker.worker_id)).toHaveLength(1);
  });

  test("a new incarnation ends the instances of the one before and frees their memory", async () => {
    const { store } = fixture();
    const { model, worker, instance } = await startInstance(store);
    const restarted = { ...worker, incarnation: newIncarnation() };
    await store.registerWorker(restarted);
    expect(await liveInstance(store, instance.instance_id)).toBeUndefined();
    expect(await reservedBytes(store, worker)).toBe(0);
    expect((await history(store, "instance", instance.instance_id)).at(-1)).toBe(
      "loading -> gone (worker_restarted)",
    );
    const next = created(await store.createInstance(wantedInstance(model, restarted)));
    expect(next.incarnation).toBe(restarted.incarnation);
    // What came late from the first process frees nothing a second time.
    const late = {
      instance_id: instance.instance_id,
      from: ["loading", "ready"],
      to: "gone",
      reason: "late",
    } as const;
    expect(await store.moveInstance(late)).toBe(false);
    expect(await reservedBytes(store, worker)).toBe(400);
  });

  test("a device that is no longer reported is forgotten", async () => {
    const { store } = fixture();
    const worker = makeRegisterRequest({
      devices: [cpuDevice(1), { device_id: "cuda:0", kind: "cuda", memory_bytes: 2 }],
    });
    await store.registerWorker(worker);
    await store.registerWorker({ ...worker, incarnation: newIncarnation(), devices: [cpuDevice(3)] });
    const { devices } = await store.snapshot();
    expect(devices.filter((row) => row.worker_id === worker.worker_id)).toMatchObject([
      { device_id: "cpu", memory_bytes: 3 },
    ]);
  });

  test("a heartbeat is counted; one of another incarnation is not known", async () => {
    const { store } = fixture();
    const worker = await register(store);
    const idle = { known: true, release: [], deployed: [] };
    const unknown = { known: false, release: [], deployed: [] };
    expect(await store.heartbeat(makeHeartbeat(worker, 0))).toEqual(idle);
    const row = await workerRow(store, worker);
    expect(row).toMatchObject({ heartbeat_sequence: 0, last_heartbeat_at: expect.any(Date) });
    const stranger = { ...worker, incarnation: newIncarnation() };
    expect(await store.heartbeat(makeHeartbeat(stranger, 1))).toEqual(unknown);
    expect(await workerRow(store, worker)).toEqual(row);
    expect(await store.heartbeat(makeHeartbeat(makeRegisterRequest(), 0))).toEqual(unknown);
  });

  test("a heartbeat that arrives late is dropped", async () => {
    const { store } = fixture();
    const worker = await register(store);
    const placement = makePlacement();
    await store.heartbeat(makeHeartbeat(worker, 5, { placements: [placement] }));
    for (const sequence of [4, 5]) {
      const late = makeHeartbeat(worker, sequence, { state: "draining" });
      expect(await store.heartbeat(late)).toEqual({ known: true, release: [], deployed: [] });
    }
    expect(await workerRow(store, worker)).toMatchObject({ state: "ready", heartbeat_sequence: 5 });
    const { placements } = await store.snapshot();
    expect(placements.filter((row) => row.worker_id === worker.worker_id)).toHaveLength(1);
  });

  test("a worker that registers again may count its heartbeats anew", async () => {
    const { store } = fixture();
    const worker = await register(store);
    await store.heartbeat(makeHeartbeat(worker, 7));
    await store.registerWorker({ ...worker, again: true });
    await store.heartbeat(makeHeartbeat(worker, 0));
    expect((await workerRow(store, worker))?.heartbeat_sequence).toBe(0);
  });

  test("a process that another one has followed cannot come back, and changes nothing", async () => {
    const { store } = fixture();
    const { worker } = await startInstance(store);
    const next = { ...worker, incarnation: newIncarnation(), url: "http://127.0.0.1:4009" };
    await store.registerWorker(next);
    const row = await workerRow(store, worker);
    const old = { ...worker, again: true };
    await expect(store.registerWorker(old)).rejects.toMatchObject({ code: "stale_epoch" });
    expect(await workerRow(store, worker)).toEqual(row);
    await store.registerWorker({ ...next, again: true });
    expect((await workerRow(store, worker))?.incarnation).toBe(next.incarnation);
  });

  test("placements follow the reports", async () => {
    const { store } = fixture();
    const worker = await register(store);
    const kept = makePlacement({ state: "loading", bytes_present: 1 });
    const grown = { ...kept, bytes_present: 2 };
    const loaded = { ...kept, state: "present", bytes_present: 4_096 } as const;
    const inMemory = { ...loaded, tier: "host" } as const;
    const other = makePlacement();
    const placements = async () =>
      (await store.snapshot()).placements.filter((p) => p.worker_id === worker.worker_id);
    await store.heartbeat(makeHeartbeat(worker, 0, { placements: [kept, other] }));
    expect(await placements()).toHaveLength(2);
    await store.heartbeat(makeHeartbeat(worker, 1, { placements: [grown, other] }));
    const [unchanged] = (await placements()).filter((p) => p.checkpoint === other.checkpoint);
    await store.heartbeat(makeHeartbeat(worker, 2, { placements: [loaded, inMemory, inMemory, other] }));
    expect((await placements()).filter((p) => p.checkpoint === other.checkpoint)).toEqual(
      unchanged ? [unchanged] : [],
    );
    expect((await placements()).filter((p) => p.checkpoint === kept.checkpoint)).toMatchObject([
      inMemory,
      loaded,
    ]);
    await store.heartbeat(makeHeartbeat(worker, 3));
    expect(await placements()).toEqual([]);
    expect(await history(store, "placement", `${worker.worker_id}/${kept.checkpoint}/disk`)).toEqual([
      "null -> loading (reported)",
      "loading -> present (reported)",
      "present -> absent (reported)",
    ]);
  });

  test("queued links and problems of the disk follow the reports, whatever a message holds", async () => {
    const { store } = fixture();
    const disk = { link: "disk", queued_bytes: 4_096, queued_ms: 2.5, bandwidth_bytes_per_s: null };
    const worker = makeRegisterRequest({ links: [disk] });
    await store.registerWorker(worker);
    expect(await workerRow(store, worker)).toMatchObject({ links: [disk], problems: [] });
    const problem = {
      checkpoint: newDigest(),
      error: { code: "permission_denied", message: "weights.bin \0 \ud800 📖" },
    } as const;
    const busy = { ...disk, link: "device:cuda:0", bandwidth_bytes_per_s: 2 ** 34 };
    await store.heartbeat(makeHeartbeat(worker, 0, { links: [disk, busy], problems: [problem] }));
    expect(await workerRow(store, worker)).toMatchObject({
      links: [disk, busy],
      problems: [{ ...problem, error: { ...problem.error, message: "weights.bin \ufffd \ufffd 📖" } }],
    });
    await store.heartbeat(makeHeartbeat(worker, 1));
    expect(await workerRow(store, worker)).toMatchObject({ links: [], problems: [] });
  });

  test("a worker hears which of its checkpoints a model names, also from a late heartbeat", async () => {
    const { store } = fixture();
    const model = await deploy(store);
    const worker = await register(store);
    const placements = [
      makePlacement({ checkpoint: model.checkpoint }),
      makePlacement({ checkpoint: model.checkpoint, tier: "host" }),
      makePlacement(),
    ];
    const deployed = [model.checkpoint];
    const report = makeHeartbeat(worker, 3, { placements });
    expect(await store.heartbeat(report)).toMatchObject({ known: true, deployed });
    expect(await store.heartbeat(report)).toMatchObject({ known: true, deployed });
    const elsewhere = makeHeartbeat(worker, 4, { placements: [makePlacement()] });
    expect(await store.heartbeat(elsewhere)).toMatchObject({ deployed: [] });
  });

  test("instances that a worker reports failed or gone end here, with the reason", async () => {
    const { store } = fixture();
    const { model, worker, instance } = await startInstance(store);
    const second = created(await store.createInstance(wantedInstance(model, worker, { expected_live: 1 })));
    const error = { code: "engine_failed", message: "last words: \0 \ud800 📖" } as const;
    const report = makeHeartbeat(worker, 0, {
      instances: [
        makeInstanceReport(instance.instance_id, { state: "failed", error }),
        makeInstanceReport(second.instance_id, { state: "gone" }),
      ],
    });
    const answer = await store.heartbeat(report);
    expect(answer.known).toBe(true);
    expect(answer.release.toSorted()).toEqual([instance.instance_id, second.instance_id].toSorted());
    expect(await reservedBytes(store, worker)).toBe(0);
    expect(await history(store, "instance", instance.instance_id)).toEqual([
      "null -> loading (created)",
      "loading -> failed (reported)",
    ]);
    expect(await history(store, "instance", second.instance_id)).toEqual([
      "null -> loading (created)",
      "loading -> gone (reported)",
    ]);
    await store.heartbeat({ ...report, sequence: 1 });
    expect(await reservedBytes(store, worker)).toBe(0);
    expect(await history(store, "instance", instance.instance_id)).toHaveLength(2);
  });

  test("a worker is told to release what is not live here, and nothing else", async () => {
    const { store } = fixture();
    const { worker, instance } = await startInstance(store);
    const elsewhere = await startInstance(store);
    const unknown = newInstanceId();
    const ids = [instance.instance_id, elsewhere.instance.instance_id, unknown];
    const report = makeHeartbeat(worker, 0, { instances: ids.map((id) => makeInstanceReport(id)) });
    const { release } = await store.heartbeat(report);
    expect(release.toSorted()).toEqual([elsewhere.instance.instance_id, unknown].toSorted());
    expect(await liveInstance(store, instance.instance_id)).toBeDefined();
    expect(await liveInstance(store, elsewhere.instance.instance_id)).toBeDefined();
  });

  test("a draining worker gets no new instance and keeps those it has", async () => {
    const { store } = fixture();
    const { model, worker, instance } = await startInstance(store);
    await store.heartbeat(makeHeartbeat(worker, 0, { state: "draining" }));
    expect(await store.createInstance(wantedInstance(model, worker, { expected_live: 1 }))).toEqual({
      ok: false,
      reason: "worker_not_ready",
    });
    expect(await liveInstance(store, instance.instance_id)).toBeDefined();
    expect((await history(store, "worker", worker.worker_id)).at(-1)).toBe("ready -> draining (reported)");
  });

  test("a worker that says goodbye takes its instances with it", async () => {
    const { store } = fixture();
    const { worker, instance } = await startInstance(store);
    await store.heartbeat(makeHeartbeat(worker, 0, { state: "gone" }));
    expect(await liveInstance(store, instance.instance_id)).toBeUndefined();
    expect(await reservedBytes(store, worker)).toBe(0);
    expect((await history(store, "instance", instance.instance_id)).at(-1)).toBe(
      "loading -> gone (worker_gone)",
    );
    await store.registerWorker({ ...worker, incarnation: newIncarnation() });
    expect((await workerRow(store, worker))?.state).toBe("ready");
  });
}
