/** Several gateways on one state: one leads, all know the same, and wall clocks may say what they like. */
import { describe, expect, test } from "bun:test";
import { limits } from "../../schema/limits.ts";
import { clusterHeaders, GatewayScene } from "../../test/support/gateway-scene.ts";
import { MachineClock, ManualClock } from "../../test/support/manual-clock.ts";
import { MemoryStateStore } from "../../test/support/memory-state-store.ts";
import { gate, ScriptedWorker, say } from "../../test/support/scripted-worker.ts";

const hour_ms = 3_600_000;

/** Three gateways and a database, each a machine with its own wall clock; one model, one worker that reports to all in turn. */
async function threeGateways(settings: { keep_alive_ms?: number } = {}) {
  const time = new ManualClock();
  const databaseClock = new MachineClock(time, -2 * hour_ms);
  const clocks = [0, hour_ms, -24 * hour_ms].map((offset_ms) => new MachineClock(time, offset_ms));
  const store = new MemoryStateStore(databaseClock);
  const workers = new ScriptedWorker();
  const gateways = clocks.map((clock) => new GatewayScene({ clock, store, workers }));
  const [first] = gateways;
  if (first === undefined) throw new Error("there are three gateways");
  const model = await first.deploy({ settings: { slots: 4, ...settings } });
  const worker = await first.register([model]);
  for (const { gateway } of gateways) await gateway.start();
  let beats = 0;
  const beat = async () => {
    // One counter for all: the worker numbers its reports, whichever gateway takes them.
    await gateways[beats % 3]?.heartbeat(worker, { sequence: beats });
    beats += 1;
  };
  /** Lets time pass with the worker's heartbeats. */
  const pass = async (seconds: number) => {
    for (let i = 0; i < seconds; i++) {
      await beat();
      await time.advance(1_000);
    }
  };
  const stop = async () => {
    for (const { gateway } of gateways) await gateway.stop();
  };
  const states = async () => (await store.snapshot()).instances.map((i) => i.state);
  const leader = async () => (await store.changes()).leases.find(({ name }) => name === "leader");
  return {
    time,
    databaseClock,
    clocks,
    store,
    workers,
    gateways,
    first,
    model,
    worker,
    pass,
    stop,
    states,
    leader,
  };
}

describe("wall clocks that jump", () => {
  test("end no lease, no leadership and no instance", async () => {
    const { databaseClock, clocks, store, gateways, first, model, pass, stop, states, leader } =
      await threeGateways();
    await (await first.chat(model.id)).text();
    const before = await leader();
    for (const clock of [...clocks, databaseClock]) {
      for (const by_ms of [hour_ms, -7 * hour_ms, 100 * hour_ms, -hour_ms / 2]) {
        clock.jump(by_ms);
        await pass(6);
        expect(await states()).toEqual(["ready"]);
        expect((await store.snapshot()).workers.map((w) => w.state)).toEqual(["ready"]);
      }
    }
    expect(await leader()).toMatchObject({ epoch: before?.epoch ?? 0, holder: before?.holder ?? "" });
    for (const gateway of gateways) expect((await gateway.chat(model.id)).status).toBe(200);
    expect(store.calls.get("createInstance")).toBe(1);
    await stop();
  });

  test("neither shorten nor stretch the time for which idle instances stay", async () => {
    const { clocks, first, model, pass, stop, states } = await threeGateways({ keep_alive_ms: 20_000 });
    await (await first.chat(model.id)).text();
    for (const clock of clocks) clock.jump(hour_ms);
    await pass(18);
    expect(await states()).toEqual(["ready"]);
    for (const clock of clocks) clock.jump(-3 * hour_ms);
    await pass(4);
    expect(await states()).toEqual([]);
    await stop();
  });

  test("do not hide that a worker is silent", async () => {
    const { time, clocks, first, model, pass, stop, states, store } = await threeGateways();
    await (await first.chat(model.id)).text();
    await pass(3);
    for (const clock of clocks) clock.jump(-hour_ms);
    await time.advance(limits.worker_lease_ms + 2 * limits.reconcile_ms);
    expect(await states()).toEqual([]);
    expect((await store.snapshot()).workers.map((w) => w.state)).toEqual(["lost"]);
    await stop();
  });
});

describe("what need be done once", () => {
  test("is done by the leader alone, and by the next one when it has died", async () => {
    const { time, gateways, first, model, pass, stop, states, store, leader } = await threeGateways({
      keep_alive_ms: 5_000,
    });
    await (await first.chat(model.id)).text();
    const before = await leader();
    const leading = gateways.filter((g) => g.log.some((line) => line.event === "leader"));
    expect(leading).toHaveLength(1);
    await leading[0]?.gateway.stop();
    await pass(1);
    const after = await leader();
    expect(after?.epoch).toBe((before?.epoch ?? 0) + 1);
    await pass(8);
    expect(await states()).toEqual([]);
    expect(gateways.flatMap((g) => g.log).filter((line) => line.event === "instance_gone")).toHaveLength(1);
    await time.advance(limits.worker_lease_ms + 2 * limits.reconcile_ms);
    expect((await store.snapshot()).workers.map((w) => w.state)).toEqual(["lost"]);
    expect(gateways.flatMap((g) => g.log).filter((line) => line.event === "worker_lost")).toHaveLength(1);
    await stop();
  });

  test("leaves alone what is in use at another gateway", async () => {
    const { gateways, workers, first, model, pass, stop, states } = await threeGateways({
      keep_alive_ms: 3_000,
    });
    const finish = gate();
    await (await first.chat(model.id)).text();
    workers.onGenerate = async function* () {
      await finish.passed;
      yield* say(["late"]);
    };
    const answer = gateways[2]?.chat(model.id);
    await pass(10);
    expect(await states()).toEqual(["ready"]);
    finish.open();
    expect((await answer)?.status).toBe(200);
    await stop();
  });
});

test("no gateway listens to a process that another one has followed", async () => {
  const { gateways, worker, model, first, store, stop } = await threeGateways();
  await (await first.chat(model.id)).text();
  const next = { ...worker, incarnation: "f".repeat(16) };
  expect((await first.post("/cluster/v1/register", next, clusterHeaders)).status).toBe(200);
  for (const gateway of gateways) {
    const late = await gateway.heartbeat(worker, { sequence: 1_000 });
    expect(await late.json()).toMatchObject({ known: false });
    const again = await gateway.post("/cluster/v1/register", { ...worker, again: true }, clusterHeaders);
    expect(again.status).toBe(409);
    expect((await again.json()).error.code).toBe("stale_epoch");
  }
  const { workers, instances } = await store.snapshot();
  expect(workers).toMatchObject([{ incarnation: next.incarnation, state: "ready" }]);
  expect(instances).toEqual([]);
  await stop();
});

test("any gateway explains a request, whichever took it", async () => {
  const { gateways, first, model, pass, stop } = await threeGateways();
  const answer = await first.chat(model.id);
  const { id } = await answer.json();
  await pass(1);
  const request_id = String(id).replace(/^chatcmpl-/, "");
  const explained = await Promise.all(
    gateways.map(async (gateway) => await (await gateway.get(`/admin/v1/requests/${request_id}`)).json()),
  );
  expect(explained[0]).toMatchObject({ state: "finished", decisions: [{ action: "start" }] });
  expect(explained[1]).toEqual(explained[0]);
  expect(explained[2]).toEqual(explained[0]);
  await stop();
});

test("old records are forgotten by the leader, young ones stay", async () => {
  const { gateways, first, model, store, pass, stop } = await threeGateways();
  await (await first.chat(model.id)).text();
  const events = async () => (await store.listEvents({ limit: 1_000 })).length;
  const before = await events();
  await pass(30);
  expect(await events()).toBeGreaterThanOrEqual(before);
  expect(store.calls.get("forget")).toBeLessThanOrEqual(4);
  expect(gateways.flatMap((g) => g.log).some((line) => line.event === "records_forgotten")).toBe(false);
  await stop();
});

test("no request is refused for want of a worker that another gateway has taken in since the last read", async () => {
  const store = new MemoryStateStore(new ManualClock());
  const [mine, other] = [new GatewayScene({ store }), new GatewayScene({ store })];
  const model = await mine.deploy();
  expect((await mine.chat(model.id)).status).toBe(503);
  await other.register([model]);
  expect((await mine.chat(model.id)).status).toBe(200);
});

test("a refusal stands when the database cannot be asked again", async () => {
  const store = new MemoryStateStore(new ManualClock());
  const scene = new GatewayScene({ store });
  const model = await scene.deploy();
  expect((await scene.chat(model.id)).status).toBe(503);
  store.isAway = true;
  expect(await (await scene.chat(model.id)).json()).toMatchObject({ error: { code: "no_worker" } });
});
