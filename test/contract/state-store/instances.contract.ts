/**
 * Instances: memory is booked when they are created and freed once when they end; only legal moves are made. Longer than
 * other files because every move is tried.
 */
import { expect, test } from "bun:test";
import type { InstanceMove } from "../../../gateway/ports.ts";
import type { InstanceReport } from "../../../schema/cluster/membership.ts";
import { type InstanceState, instanceMoves, instanceStates } from "../../../schema/vocab.ts";
import {
  makeHeartbeat,
  makeInstanceReport,
  makeRegisterRequest,
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
} from "./fixture.ts";

/** Ways from loading into every state. */
const paths: Record<InstanceState, readonly InstanceState[]> = {
  loading: [],
  ready: ["ready"],
  migrating: ["ready", "migrating"],
  draining: ["ready", "draining"],
  parked: ["ready", "parked"],
  gone: ["gone"],
  failed: ["failed"],
};
const legalMoves = instanceStates.flatMap((from) => instanceMoves[from].map((to) => ({ from, to })));
const illegalMoves = instanceStates.flatMap((from) =>
  instanceStates
    .filter((to) => !legalMoves.some((m) => m.from === from && m.to === to))
    .map((to) => ({ from, to })),
);

export function instanceContract(fixture: Fixture): void {
  const moveTo = async (instance_id: string, from: InstanceState, to: InstanceState) => {
    const move: InstanceMove = { instance_id, from: [from], to, reason: "test" };
    return await fixture().store.moveInstance(move);
  };

  test("a heartbeat tells an instance's fingerprint, and when it has none any more", async () => {
    const { store } = fixture();
    const { worker, instance } = await startInstance(store);
    const { instance_id } = instance;
    const fingerprintAfter = async (sequence: number, fields: Partial<InstanceReport>) => {
      const instances = [makeInstanceReport(instance_id, fields)];
      await store.heartbeat(makeHeartbeat(worker, sequence, { instances }));
      return (await liveInstance(store, instance_id))?.fingerprint;
    };
    expect(instance.fingerprint).toBeNull();
    expect(await fingerprintAfter(0, { fingerprint: "abc, llama 1" })).toBe("abc, llama 1");
    expect(await fingerprintAfter(1, {})).toBeNull();
    expect(await fingerprintAfter(2, { fingerprint: "abc" })).toBe("abc");
  });

  test("ended instances are listed with their errors, the last ended first", async () => {
    const { store } = fixture();
    const first = (await startInstance(store)).instance;
    const second = (await startInstance(store)).instance;
    const live = (await startInstance(store)).instance;
    const error = { code: "engine_failed", message: "ended with status 139" } as const;
    const end = { from: ["loading"], to: "failed", reason: "test", error } as const;
    await store.moveInstance({ ...end, instance_id: first.instance_id });
    await Bun.sleep(5);
    await store.moveInstance({ ...end, instance_id: second.instance_id });
    const ours = [first.instance_id, second.instance_id, live.instance_id];
    const listed = (await store.endedInstances(100)).filter((i) => ours.includes(i.instance_id));
    expect(listed.map((i) => i.instance_id)).toEqual([second.instance_id, first.instance_id]);
    expect(listed[0]).toMatchObject({
      state: "failed",
      error_code: error.code,
      error_message: error.message,
    });
    expect((await store.endedInstances(1)).map((i) => i.instance_id)).toEqual([second.instance_id]);
  });

  test("a new instance is loading and has its memory booked", async () => {
    const { store } = fixture();
    const { model, worker, instance } = await startInstance(store);
    expect(instance).toMatchObject({
      model_id: model.model_id,
      checkpoint: model.checkpoint,
      worker_id: worker.worker_id,
      incarnation: worker.incarnation,
      device_id: "cpu",
      state: "loading",
      context_tokens: 128,
      slots: 4,
      memory_bytes: 400,
      error_code: null,
      ready_at: null,
      last_used_at: null,
      ended_at: null,
    });
    expect(instance.created_at).toBeInstanceOf(Date);
    expect(await liveInstance(store, instance.instance_id)).toEqual(instance);
    expect(await reservedBytes(store, worker)).toBe(400);
    expect(await history(store, "instance", instance.instance_id)).toEqual(["null -> loading (created)"]);
  });

  test("memory can be booked to the last byte and not beyond", async () => {
    const { store } = fixture();
    const { model, worker } = await startInstance(store);
    const rest = { expected_live: 1, memory_bytes: 601 };
    expect(await store.createInstance(wantedInstance(model, worker, rest))).toEqual({
      ok: false,
      reason: "no_memory",
    });
    created(await store.createInstance(wantedInstance(model, worker, { ...rest, memory_bytes: 600 })));
    expect(await reservedBytes(store, worker)).toBe(1_000);
    const none = { expected_live: 2, memory_bytes: 1 };
    expect(await store.createInstance(wantedInstance(model, worker, none))).toEqual({
      ok: false,
      reason: "no_memory",
    });
    expect(await reservedBytes(store, worker)).toBe(1_000);
  });

  test("a parked instance books less and takes it back only where it is free", async () => {
    const { store } = fixture();
    const { model, worker, instance } = await startInstance(store);
    const { instance_id } = instance;
    const move = (from: InstanceState, to: InstanceState, memory_bytes?: number) =>
      store.moveInstance({
        ...{ instance_id, from: [from], to, reason: "test" },
        ...(memory_bytes === undefined ? {} : { memory_bytes }),
      });
    await move("loading", "ready");
    await move("ready", "draining");
    expect(await move("draining", "parked", 50)).toBe(true);
    expect(await liveInstance(store, instance_id)).toMatchObject({ state: "parked", memory_bytes: 50 });
    expect(await reservedBytes(store, worker)).toBe(50);
    created(
      await store.createInstance(wantedInstance(model, worker, { expected_live: 1, memory_bytes: 601 })),
    );
    expect(await move("parked", "loading", 400)).toBe(false);
    expect(await liveInstance(store, instance_id)).toMatchObject({ state: "parked", memory_bytes: 50 });
    expect(await reservedBytes(store, worker)).toBe(651);
    expect(await move("parked", "loading", 399)).toBe(true);
    expect(await reservedBytes(store, worker)).toBe(1_000);
    await move("loading", "failed");
    expect(await reservedBytes(store, worker)).toBe(601);
  });

  test("many gateways that bring one parked instance back book its memory once", async () => {
    const { store } = fixture();
    const { worker, instance } = await startInstance(store);
    const { instance_id } = instance;
    await moveTo(instance_id, "loading", "ready");
    const park = { instance_id, from: ["ready"], to: "parked", reason: "test", memory_bytes: 50 } as const;
    await store.moveInstance(park);
    const resume = {
      instance_id,
      from: ["parked"],
      to: "loading",
      reason: "test",
      memory_bytes: 400,
    } as const;
    const moved = await Promise.all(Array.from({ length: 8 }, () => store.moveInstance(resume)));
    expect(moved.filter(Boolean)).toHaveLength(1);
    expect(await reservedBytes(store, worker)).toBe(400);
  });

  test("a device that the worker does not have has no memory", async () => {
    const { store } = fixture();
    const model = await deploy(store);
    const wanted = wantedInstance(model, await register(store), { device_id: "cuda:7" });
    expect(await store.createInstance(wanted)).toEqual({ ok: false, reason: "no_memory" });
  });

  test("an unknown worker is not ready", async () => {
    const { store } = fixture();
    const model = await deploy(store);
    expect(await store.createInstance(wantedInstance(model, makeRegisterRequest()))).toEqual({
      ok: false,
      reason: "worker_not_ready",
    });
  });

  test("a start is refused when the model has more live instances than expected", async () => {
    const { store } = fixture();
    const { model, worker, instance } = await startInstance(store);
    const other = await register(store);
    expect(await store.createInstance(wantedInstance(model, other))).toEqual({
      ok: false,
      reason: "conflict",
    });
    expect(await reservedBytes(store, other)).toBe(0);
    await moveTo(instance.instance_id, "loading", "failed");
    created(await store.createInstance(wantedInstance(model, worker)));
  });

  test.each(legalMoves)(
    "moves from $from to $to, with an event and the memory of live ones",
    async ({ from, to }) => {
      const { store } = fixture();
      const { worker, instance } = await startInstance(store);
      let at: InstanceState = "loading";
      for (const next of paths[from]) {
        expect(await moveTo(instance.instance_id, at, next)).toBe(true);
        at = next;
      }
      expect(await moveTo(instance.instance_id, from, to)).toBe(true);
      const isLive = to !== "gone" && to !== "failed";
      expect(await reservedBytes(store, worker)).toBe(isLive ? 400 : 0);
      expect((await liveInstance(store, instance.instance_id))?.state).toBe(isLive ? to : undefined);
      const events = await history(store, "instance", instance.instance_id);
      expect(events).toHaveLength(paths[from].length + 2);
      expect(events.at(-1)).toBe(`${from} -> ${to} (test)`);
    },
  );

  test("why an instance failed its worker knows best, also after somebody else has noted the failure", async () => {
    const { store } = fixture();
    const { worker, instance } = await startInstance(store);
    const { instance_id } = instance;
    const noted = { code: "engine_failed", message: "It ended." } as const;
    await store.moveInstance({ instance_id, from: ["loading"], to: "failed", reason: "test", error: noted });
    const error = { code: "engine_failed", message: "It ended. Its last words: GGML_ASSERT" } as const;
    const report = (sequence: number, fields: Partial<InstanceReport>) =>
      store.heartbeat(
        makeHeartbeat(worker, sequence, { instances: [makeInstanceReport(instance_id, fields)] }),
      );
    const message = async () =>
      (await store.endedInstances(1_000)).find((i) => i.instance_id === instance_id)?.error_message;
    expect((await report(1, { state: "ready" })).release).toEqual([instance_id]);
    expect(await message()).toBe(noted.message);
    await report(2, { state: "failed", error });
    expect(await message()).toBe(error.message);
    await report(3, { state: "gone" });
    expect(await message()).toBe(error.message);
    expect(await history(store, "instance", instance_id)).toHaveLength(2);
  });

  test("illegal moves are defects: they throw and change nothing", async () => {
    const { store } = fixture();
    const { worker, instance } = await startInstance(store);
    for (const { from, to } of illegalMoves) {
      await expect(moveTo(instance.instance_id, from, to)).rejects.toThrow(`${from} -> ${to}`);
    }
    const mixed: InstanceMove = {
      instance_id: instance.instance_id,
      from: ["loading", "gone"],
      to: "ready",
      reason: "test",
    };
    await expect(store.moveInstance(mixed)).rejects.toThrow("gone -> ready");
    await expect(store.moveInstance({ ...mixed, from: [] })).rejects.toThrow();
    expect(await reservedBytes(store, worker)).toBe(400);
    expect(await history(store, "instance", instance.instance_id)).toHaveLength(1);
  });

  test("a move whose guard fails changes nothing", async () => {
    const { store } = fixture();
    const { worker, instance } = await startInstance(store);
    expect(await moveTo(instance.instance_id, "ready", "gone")).toBe(false);
    expect(await moveTo(newInstanceId(), "ready", "gone")).toBe(false);
    expect(await reservedBytes(store, worker)).toBe(400);
    expect(await history(store, "instance", instance.instance_id)).toHaveLength(1);
  });

  test("any of several states may be the one to come from", async () => {
    const { store } = fixture();
    const { worker, instance } = await startInstance(store);
    const end: InstanceMove = {
      instance_id: instance.instance_id,
      from: ["loading", "ready", "draining"],
      to: "failed",
      reason: "load_failed",
      error: { code: "model_load_failed", message: "truncated \0 file" },
    };
    expect(await store.moveInstance(end)).toBe(true);
    expect(await store.moveInstance(end)).toBe(false);
    expect(await reservedBytes(store, worker)).toBe(0);
    expect((await history(store, "instance", instance.instance_id)).at(-1)).toBe(
      "loading -> failed (load_failed)",
    );
  });

  test("readiness has a time, kept while the instance stays loaded", async () => {
    const { store } = fixture();
    const { instance } = await startInstance(store);
    await moveTo(instance.instance_id, "loading", "ready");
    const first = (await liveInstance(store, instance.instance_id))?.ready_at;
    expect(first).toBeInstanceOf(Date);
    await Bun.sleep(5);
    await moveTo(instance.instance_id, "ready", "draining");
    await moveTo(instance.instance_id, "draining", "ready");
    expect((await liveInstance(store, instance.instance_id))?.ready_at).toEqual(first);
  });

  test("the time of the last use never goes back and is no event", async () => {
    const { store } = fixture();
    const { instance } = await startInstance(store);
    const lastUse = async () => (await liveInstance(store, instance.instance_id))?.last_used_at;
    await store.touchInstance(instance.instance_id, 60_000);
    const first = await lastUse();
    expect(first).toBeInstanceOf(Date);
    await store.touchInstance(instance.instance_id, 120_000);
    expect(await lastUse()).toEqual(first ?? null);
    await store.touchInstance(instance.instance_id, 10_000);
    const passed_ms = ((await lastUse())?.getTime() ?? 0) - (first?.getTime() ?? 0);
    expect(passed_ms).toBeGreaterThanOrEqual(50_000);
    expect(passed_ms).toBeLessThan(110_000);
    await store.touchInstance(newInstanceId(), 0);
    expect(await history(store, "instance", instance.instance_id)).toHaveLength(1);
  });
}
