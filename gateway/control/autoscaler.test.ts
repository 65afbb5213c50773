/** More instances before each request asks for one, on a clock moved by hand: minimums, bursts, concurrency, and back. */
import { describe, expect, test } from "bun:test";
import type { DeployRequest } from "../../schema/api/admin.ts";
import { queueView } from "../../schema/api/admin.ts";
import type { RegisterRequest } from "../../schema/cluster/membership.ts";
import { instanceMemoryBytes } from "../../schema/memory.ts";
import { cpuDevice, makeManifest } from "../../test/support/cluster-facts.ts";
import { eventually } from "../../test/support/eventually.ts";
import { GatewayScene } from "../../test/support/gateway-scene.ts";
import { ManualClock } from "../../test/support/manual-clock.ts";
import { gate, say } from "../../test/support/scripted-worker.ts";

const manifest = makeManifest();
const slots = 2;
const oneInstance = instanceMemoryBytes(manifest.model, manifest.weights.bytes, {
  context_tokens: 128,
  slots,
});

/** Models on workers that have room for one instance each; answers end when told. */
async function scene(settings: readonly Partial<DeployRequest["settings"]>[], workers: number) {
  const clock = new ManualClock();
  const scene = new GatewayScene({ clock, config: { park_ms: 5_000, hold_ms: 60_000 } });
  const models = [];
  for (const own of settings) models.push(await scene.deploy({ settings: { slots, ...own } }));
  const registered: RegisterRequest[] = [];
  const devices = [cpuDevice(1.5 * oneInstance)];
  for (let i = 0; i < workers; i++) registered.push(await scene.register(models, { devices }));
  const gates: ReturnType<typeof gate>[] = [];
  scene.workers.onGenerate = async function* () {
    const end = gate();
    gates.push(end);
    await end.passed;
    yield* say(["ok"]);
  };
  await scene.gateway.start();
  const pass = async (ms: number) => {
    for (let at = 0; at < ms; at += 250) {
      for (const worker of registered) await scene.heartbeat(worker);
      await clock.advance(250);
    }
  };
  const rows = async (id: string) =>
    (await scene.store.snapshot()).instances.filter((i) => i.model_id === id);
  const states = async (id: string) => (await rows(id)).map((i) => i.state).toSorted();
  /** Lets answers end as they come until all of these are there. */
  const finish = async (answers: readonly Promise<Response>[]) => {
    let isOver = false;
    const all = Promise.all(answers).finally(() => {
      isOver = true;
    });
    while (!isOver) {
      for (const one of gates) one.open();
      await pass(250);
    }
    for (const answer of await all) expect(answer.status).toBe(200);
  };
  const ids = models.map((m) => m.id);
  return { clock, scene, ids, models, gates, pass, states, finish };
}

describe("a minimum", () => {
  test("starts with the deployment, without a request, and outlives every keep-alive", async () => {
    const { scene: s, ids, pass, states } = await scene([{ min_instances: 2, keep_alive_ms: 500 }], 3);
    const [id = ""] = ids;
    await pass(1_000);
    expect(await states(id)).toEqual(["ready", "ready"]);
    await pass(20_000);
    expect(await states(id)).toEqual(["ready", "ready"]);
    expect(s.workers.loads).toHaveLength(2);
    await s.gateway.stop();
  });

  test("is not stopped for another model, which is told what it waits for", async () => {
    const { scene: s, ids, pass, states } = await scene([{ min_instances: 1 }, {}], 1);
    const [kept = "", other = ""] = ids;
    await pass(1_000);
    const answer = s.chat(other);
    await eventually("it waits", async () => (await queue(s)).data.length === 1);
    expect((await queue(s)).data[0]?.reason).toContain("always kept");
    await pass(61_000);
    expect((await answer).status).toBe(504);
    expect(await states(kept)).toEqual(["ready"]);
    await s.gateway.stop();
  });

  test("that is taken back lets its instance go", async () => {
    const { scene: s, models, pass, states } = await scene([{ min_instances: 1, keep_alive_ms: 500 }], 1);
    const [model] = models;
    if (model === undefined) throw new Error("no model");
    await pass(2_000);
    const settings = { slots, keep_alive_ms: 500 };
    await s.deploy({ id: model.id, manifest: model.manifest, settings, replace: true });
    await pass(1_000);
    expect(await states(model.id)).toEqual(["parked"]);
    await s.gateway.stop();
  });

  test("comes back after a start that failed, and not in a loop", async () => {
    const { scene: s, ids, states, clock } = await scene([{ min_instances: 1 }], 0);
    const [id = ""] = ids;
    s.workers.onLoad = () => [{ type: "failed", error: { code: "engine_failed", message: "no" } }];
    const [model] = await s.store.listModels();
    const bytes_present = model?.checkpoint.manifest.weights.bytes ?? 0;
    const placement = { checkpoint: model?.model.checkpoint ?? "", tier: "disk", state: "present" } as const;
    const fields = { devices: [cpuDevice(oneInstance)], placements: [{ ...placement, bytes_present }] };
    const worker = await s.register([], fields);
    for (let i = 0; i < 12; i++) {
      await clock.advance(250);
      await s.heartbeat(worker);
    }
    // At once, after one second and after two more.
    expect(s.workers.loads.length).toBeGreaterThanOrEqual(2);
    expect(s.workers.loads.length).toBeLessThanOrEqual(3);
    expect(await states(id)).toEqual([]);
    await s.gateway.stop();
  });
});

describe("a burst", () => {
  test("starts as many instances at once as are worth it and have room; later they park, and go", async () => {
    const settings = { keep_alive_ms: 2_000, queue_delay_ms: 1_000 };
    const { scene: s, ids, pass, states, finish } = await scene([settings], 3);
    const [id = ""] = ids;
    const answers = Array.from({ length: 24 }, () => s.chat(id));
    await eventually("the first runs", () => s.workers.loads.length === 1);
    await pass(500);
    expect(s.workers.loads).toHaveLength(3);
    expect(new Set(s.log.filter((l) => l.event === "scaled_up").map((l) => l.fields.worker_id)).size).toBe(2);
    await finish(answers);
    await pass(3_000);
    expect(await states(id)).toEqual(["parked", "parked", "parked"]);
    await pass(7_000);
    expect(await states(id)).toEqual([]);
    await s.gateway.stop();
  });

  test("that one instance serves in time starts nothing", async () => {
    const { scene: s, ids, pass, finish } = await scene([{}], 3);
    const [id = ""] = ids;
    const answers = Array.from({ length: 8 }, () => s.chat(id));
    await pass(1_000);
    expect(s.workers.loads).toHaveLength(1);
    await finish(answers);
    await s.gateway.stop();
  });

  test("never gets more instances than the model may have", async () => {
    const { scene: s, ids, pass, finish } = await scene([{ max_instances: 2, queue_delay_ms: 0 }], 3);
    const [id = ""] = ids;
    const answers = Array.from({ length: 24 }, () => s.chat(id));
    await pass(2_000);
    expect(s.workers.loads).toHaveLength(2);
    await finish(answers);
    await s.gateway.stop();
  });
});

describe("a target concurrency", () => {
  test("that is exceeded for some seconds starts more, although slots are free", async () => {
    const { scene: s, ids, pass, states, finish } = await scene([{ target_concurrency: 1 }], 3);
    const [id = ""] = ids;
    const answers = [s.chat(id), s.chat(id)];
    await pass(1_000);
    expect(await states(id)).toHaveLength(1);
    await pass(10_000);
    expect(await states(id)).toHaveLength(2);
    await finish(answers);
    await s.gateway.stop();
  });
});

async function queue(of: GatewayScene) {
  return queueView.parse(await (await of.get("/admin/v1/queue")).json());
}
