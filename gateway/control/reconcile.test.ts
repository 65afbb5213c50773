/** The reconcile loop on a clock moved by hand: idle instances, deletions, leases, and what dead gateways left. */
import { describe, expect, test } from "bun:test";
import { SllmError } from "../../schema/error.ts";
import { limits } from "../../schema/limits.ts";
import { makeManifest } from "../../test/support/cluster-facts.ts";
import { GatewayScene } from "../../test/support/gateway-scene.ts";
import { ManualClock, settle } from "../../test/support/manual-clock.ts";
import { gate, say, someLoadTimings } from "../../test/support/scripted-worker.ts";

/** A running gateway with one model whose instance is ready. */
async function runningScene(keep_alive_ms = 10_000, park_ms = 0) {
  const clock = new ManualClock();
  const scene = new GatewayScene({ clock, config: { park_ms } });
  const model = await scene.deploy({ settings: { slots: 4, keep_alive_ms } });
  const worker = await scene.register([model]);
  await scene.gateway.start();
  await (await scene.chat(model.id)).text();
  const [instance] = (await scene.store.snapshot()).instances;
  if (instance === undefined) throw new Error("no instance was started");
  /** Lets time pass with the worker's heartbeats. */
  const pass = async (seconds: number) => {
    for (let i = 0; i < seconds; i++) {
      await scene.heartbeat(worker);
      await clock.advance(1_000);
    }
  };
  const states = async () => (await scene.store.snapshot()).instances.map((i) => i.state);
  const story = async () => {
    const events = await scene.store.listEvents({
      entity: "instance",
      entity_id: instance.instance_id,
      limit: 99,
    });
    return events.toReversed().map((e) => `${e.to_state}: ${e.reason}`);
  };
  return { clock, scene, model, worker, instance, pass, states, story };
}

describe("an idle instance", () => {
  test("is stopped after its keep-alive, and its memory is free", async () => {
    const { scene, pass, states, story, instance } = await runningScene();
    await pass(9);
    expect(await states()).toEqual(["ready"]);
    await pass(2);
    expect(await states()).toEqual([]);
    expect(scene.workers.unloads).toEqual([{ instance_id: instance.instance_id, if_idle: true }]);
    expect(await story()).toEqual(["loading: created", "ready: loaded", "draining: idle", "gone: idle"]);
    expect((await scene.store.snapshot()).devices[0]?.reserved_bytes).toBe(0);
    await scene.gateway.stop();
  });

  test("starts its keep-alive anew with each use, also across a restart of the gateway", async () => {
    const { clock, scene, model, worker, pass, states } = await runningScene();
    await pass(8);
    await (await scene.chat(model.id)).text();
    await pass(3);
    await scene.gateway.stop();
    const next = new GatewayScene({ clock, store: scene.store, workers: scene.workers });
    await next.gateway.start();
    await scene.heartbeat(worker);
    await clock.advance(3_000);
    expect(await states()).toEqual(["ready"]);
    for (let i = 0; i < 5; i++) {
      await scene.heartbeat(worker);
      await clock.advance(1_000);
    }
    expect(await states()).toEqual([]);
    await next.gateway.stop();
  });

  test("is not stopped while a generation runs, however long", async () => {
    const { scene, model, pass, states } = await runningScene();
    const finish = gate();
    scene.workers.onGenerate = async function* () {
      await finish.passed;
      yield* say(["late"]);
    };
    const answer = scene.chat(model.id);
    await pass(60);
    expect(await states()).toEqual(["ready"]);
    finish.open();
    expect((await answer).status).toBe(200);
    await pass(11);
    expect(await states()).toEqual([]);
    await scene.gateway.stop();
  });

  test("that its worker finds busy serves again and is left alone for another keep-alive", async () => {
    const { scene, pass, states, story } = await runningScene();
    scene.workers.onUnload = () => {
      throw new SllmError("instance_busy", "1 generation is running");
    };
    await pass(19);
    expect(await states()).toEqual(["ready"]);
    expect(await story()).toEqual(["loading: created", "ready: loaded", "draining: idle", "ready: in use"]);
    await scene.gateway.stop();
  });

  test("whose worker reports work of another gateway is not idle", async () => {
    const { clock, scene, worker, instance, states } = await runningScene();
    const { instance_id, model_id } = instance;
    for (let i = 0; i < 20; i++) {
      const report = { instance_id, model_id, state: "ready", active: 1, queued: 0, error: null } as const;
      await scene.heartbeat(worker, { instances: [report] });
      await clock.advance(1_000);
    }
    expect(await states()).toEqual(["ready"]);
    expect(scene.workers.unloads).toEqual([]);
    const [shown] = (await (await scene.get("/admin/v1/instances")).json()).data;
    expect(shown).toMatchObject({ instance_id, active: 1, queued: 0 });
    await scene.gateway.stop();
  });
});

describe("a model", () => {
  test("that is deleted takes no request, and goes with its last instance", async () => {
    const { scene, model, pass, states } = await runningScene();
    const finish = gate();
    scene.workers.onGenerate = async function* () {
      await finish.passed;
      yield* say(["late"]);
    };
    const answer = scene.chat(model.id);
    await settle();
    const deleted = await scene.gateway.app.request(`/admin/v1/models/${model.id}`, { method: "DELETE" });
    expect(await deleted.json()).toEqual({ id: model.id, deleted: true });
    expect((await scene.chat(model.id)).status).toBe(404);
    await pass(5);
    expect(await states()).toEqual(["ready"]);
    finish.open();
    expect((await answer).status).toBe(200);
    await pass(3);
    expect(await states()).toEqual([]);
    expect(await scene.store.getModel(model.id)).toBeNull();
    await scene.gateway.stop();
  });

  test("that is replaced is served by its new checkpoint; the old instance ends when it is idle", async () => {
    const { scene, model, worker, instance, pass } = await runningScene();
    const manifest = makeManifest();
    await scene.deploy({ id: model.id, manifest, replace: true });
    const placement = {
      checkpoint: manifest.digest,
      tier: "disk",
      state: "present",
      bytes_present: 4_096,
    } as const;
    await scene.heartbeat(worker, { placements: [...worker.placements, placement] });
    expect((await scene.chat(model.id)).status).toBe(200);
    expect(scene.workers.loads.at(-1)?.checkpoint).toBe(manifest.digest);
    await pass(3);
    const { instances } = await scene.store.snapshot();
    expect(instances.map((i) => i.checkpoint)).toEqual([manifest.digest]);
    expect(instances.some((i) => i.instance_id === instance.instance_id)).toBe(false);
    await scene.gateway.stop();
  });
});

describe("a silent worker", () => {
  test("is lost after its lease, with its instances", async () => {
    const { clock, scene, pass, states, story } = await runningScene();
    await pass(4);
    await clock.advance(limits.worker_lease_ms + limits.reconcile_ms);
    expect(await states()).toEqual([]);
    expect((await story()).at(-1)).toBe("failed: worker_lost");
    expect((await scene.store.snapshot()).workers[0]?.state).toBe("lost");
    await scene.gateway.stop();
  });

  test("is not held to heartbeats that nobody could write while the database was away", async () => {
    const { clock, scene, pass, states } = await runningScene(3_600_000);
    await pass(4);
    scene.store.isAway = true;
    await clock.advance(60_000);
    scene.store.isAway = false;
    await clock.advance(limits.worker_return_ms);
    expect(await states()).toEqual(["ready"]);
    // The loop itself may have been in its longest pause when the database came back.
    await clock.advance(6_000);
    expect(await states()).toEqual([]);
    await scene.gateway.stop();
  });
});

describe("what a dead gateway left", () => {
  test("is taken over: a load is followed to its end", async () => {
    const clock = new ManualClock();
    const dead = new GatewayScene({ clock });
    const { model } = await dead.ready();
    dead.workers.onLoad = async function* (_request, signal) {
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
    };
    const client = new AbortController();
    void dead.chat(model.id, {}, { signal: client.signal });
    await settle();
    client.abort();
    await dead.gateway.stop();
    expect((await dead.store.snapshot()).instances.map((i) => i.state)).toEqual(["loading"]);

    dead.workers.onLoad = () => [{ type: "ready", timings: someLoadTimings }];
    const next = new GatewayScene({ clock, store: dead.store, workers: dead.workers });
    await next.gateway.start();
    await settle();
    expect((await dead.store.snapshot()).instances.map((i) => i.state)).toEqual(["ready"]);
    expect(new Set(dead.workers.loads.map((l) => l.instance_id)).size).toBe(1);
    await next.gateway.stop();
  });

  test("is taken over: an instance that was being stopped is gone", async () => {
    const { clock, scene, pass, states, story } = await runningScene();
    scene.workers.onUnload = () => {
      throw new SllmError("worker_unavailable", "no answer");
    };
    await pass(11);
    expect(await states()).toEqual(["draining"]);
    await scene.gateway.stop();
    scene.workers.onUnload = () => Promise.resolve();
    const next = new GatewayScene({ clock, store: scene.store, workers: scene.workers });
    await next.gateway.start();
    await settle();
    expect(await states()).toEqual([]);
    expect((await story()).at(-1)).toContain("gone");
    await next.gateway.stop();
  });
});

test("turns that fail come at longer and longer intervals, and do not end the loop", async () => {
  const { clock, scene } = await runningScene();
  const failures = () => scene.log.filter((l) => l.event === "reconcile_failed").length;
  scene.store.isAway = true;
  await clock.advance(60_000);
  expect(failures()).toBeGreaterThan(10);
  expect(failures()).toBeLessThan(20);
  scene.store.isAway = false;
  await clock.advance(6_000);
  expect((await scene.get("/readyz")).status).toBe(200);
  await scene.gateway.stop();
  expect((await scene.get("/readyz")).status).toBe(503);
  expect((await scene.get("/livez")).status).toBe(200);
});
