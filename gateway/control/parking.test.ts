/** Idle instances park before they end, on a clock moved by hand: what they book, how they come back, when they go. */
import { expect, test } from "bun:test";
import type { DeviceReport } from "../../schema/cluster/membership.ts";
import { SllmError } from "../../schema/error.ts";
import { parkedMemoryBytes } from "../../schema/memory.ts";
import { cpuDevice } from "../../test/support/cluster-facts.ts";
import { GatewayScene } from "../../test/support/gateway-scene.ts";
import { ManualClock } from "../../test/support/manual-clock.ts";

/** A running gateway with one model whose instance is ready. */
async function parkingScene(device: Partial<DeviceReport> = {}) {
  const [keep_alive_ms, park_ms] = [5_000, 10_000];
  const clock = new ManualClock();
  const scene = new GatewayScene({ clock, config: { park_ms } });
  const model = await scene.deploy({ settings: { slots: 4, keep_alive_ms } });
  const worker = await scene.register([model], { devices: [{ ...cpuDevice(2 ** 40), ...device }] });
  await scene.gateway.start();
  await (await scene.chat(model.id)).text();
  const one = async () => (await scene.store.snapshot()).instances[0];
  const reserved = async () => (await scene.store.snapshot()).devices[0]?.reserved_bytes;
  const instance_id = (await one())?.instance_id ?? "";
  const pass = async (seconds: number) => {
    for (let i = 0; i < seconds; i++) {
      await scene.heartbeat(worker);
      await clock.advance(1_000);
    }
  };
  return { clock, scene, model, worker, instance_id, one, reserved, pass };
}

test("after its keep-alive an instance is parked and books little; a while later it is gone", async () => {
  const { scene, instance_id, one, reserved, pass } = await parkingScene();
  const running = (await reserved()) ?? 0;
  await pass(6);
  expect(await one()).toMatchObject({ instance_id, state: "parked", memory_bytes: parkedMemoryBytes() });
  expect(scene.workers.parks).toEqual([instance_id]);
  expect(await reserved()).toBe(parkedMemoryBytes());
  expect(running).toBeGreaterThan(parkedMemoryBytes());
  await pass(8);
  expect((await one())?.state).toBe("parked");
  await pass(3);
  expect(await one()).toBeUndefined();
  expect(await reserved()).toBe(0);
  expect(scene.workers.unloads).toEqual([{ instance_id, if_idle: true }]);
  const events = await scene.store.listEvents({ entity: "instance", entity_id: instance_id, limit: 99 });
  expect(events.toReversed().map((e) => `${e.to_state}: ${e.reason}`)).toEqual([
    "loading: created",
    "ready: loaded",
    "draining: idle",
    "parked: idle",
    "draining: parked long enough",
    "gone: parked long enough",
  ]);
  await scene.gateway.stop();
});

test("a request brings the parked instance back and books the whole of its memory", async () => {
  const { scene, model, instance_id, one, reserved, pass } = await parkingScene();
  const running = await reserved();
  await pass(6);
  const answer = await scene.chat(model.id);
  expect(answer.status).toBe(200);
  expect(await one()).toMatchObject({ instance_id, state: "ready" });
  expect(await reserved()).toBe(running ?? 0);
  expect(scene.workers.loads.map((load) => load.instance_id)).toEqual([instance_id, instance_id]);
  const lines = (event: string) =>
    scene.log.filter((line) => line.event === event).map((line) => line.fields);
  expect(lines("resume")).toMatchObject([{ instance_id, tier: "disk" }]);
  expect(lines("generation").map((fields) => fields.cold_start)).toEqual([true, true]);
  await pass(6);
  expect((await one())?.state).toBe("parked");
  await scene.gateway.stop();
});

test("a hundred requests to a parked model are one return", async () => {
  const { scene, model, instance_id, pass } = await parkingScene();
  await pass(6);
  const answers = await Promise.all(Array.from({ length: 100 }, () => scene.chat(model.id)));
  expect(answers.every((answer) => answer.status === 200)).toBe(true);
  expect(scene.workers.loads.map((load) => load.instance_id)).toEqual([instance_id, instance_id]);
  await scene.gateway.stop();
});

test("an instance that its worker finds busy serves again", async () => {
  const { scene, one, reserved, pass } = await parkingScene();
  const running = await reserved();
  scene.workers.onPark = () => Promise.reject(new SllmError("instance_busy", "in use"));
  await pass(7);
  expect((await one())?.state).toBe("ready");
  expect(await reserved()).toBe(running ?? 0);
  await scene.gateway.stop();
});

test("an instance that cannot be parked is stopped", async () => {
  const { scene, one, instance_id, pass } = await parkingScene();
  scene.workers.onPark = () => Promise.reject(new SllmError("engine_failed", "it ended"));
  await pass(7);
  expect(await one()).toBeUndefined();
  expect(scene.workers.unloads[0]?.instance_id).toBe(instance_id);
  await scene.gateway.stop();
});

test("a parked instance outlives the gateway and serves the next one", async () => {
  const { clock, scene, model, worker, instance_id, one, pass } = await parkingScene();
  await pass(6);
  await scene.gateway.stop();
  const options = { clock, store: scene.store, workers: scene.workers, config: { park_ms: 10_000 } };
  const next = new GatewayScene(options);
  await next.gateway.start();
  await scene.heartbeat(worker);
  expect((await next.chat(model.id)).status).toBe(200);
  expect(await one()).toMatchObject({ instance_id, state: "ready" });
  await next.gateway.stop();
});

test("a parked instance that died is reported, forgotten, and the next request starts another", async () => {
  const { scene, model, worker, instance_id, one, reserved, pass } = await parkingScene();
  await pass(6);
  const error = { code: "engine_failed", message: "killed" } as const;
  const dead = { instance_id, model_id: model.id, state: "failed", active: 0, queued: 0, error } as const;
  await scene.heartbeat(worker, { instances: [dead] });
  await pass(1);
  expect(await one()).toBeUndefined();
  expect(await reserved()).toBe(0);
  expect((await scene.chat(model.id)).status).toBe(200);
  expect((await one())?.instance_id).not.toBe(instance_id);
  await scene.gateway.stop();
});

test("a parked instance of a deleted model ends, and one with older settings", async () => {
  const deleted = await parkingScene();
  await deleted.pass(6);
  await deleted.scene.gateway.app.request(`/admin/v1/models/${deleted.model.id}`, { method: "DELETE" });
  await deleted.pass(2);
  expect(await deleted.one()).toBeUndefined();
  await deleted.scene.gateway.stop();
  const changed = await parkingScene();
  await changed.pass(6);
  const settings = { slots: 2, keep_alive_ms: 5_000 };
  await changed.scene.deploy({
    id: changed.model.id,
    manifest: changed.model.manifest,
    settings,
    replace: true,
  });
  await changed.pass(2);
  expect(await changed.one()).toBeUndefined();
  await changed.scene.gateway.stop();
});

test("on a discrete device, which would keep the memory, an idle instance ends at once", async () => {
  const { scene, one, pass } = await parkingScene({ device_id: "cuda0", kind: "cuda" });
  await pass(7);
  expect(await one()).toBeUndefined();
  expect(scene.workers.parks).toEqual([]);
  await scene.gateway.stop();
});
