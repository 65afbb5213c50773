/**
 * What users of model swappers complain about, as tests: several models that do not fit together, all busy. A gateway on
 * scripted workers; times are the test's own.
 */
import { expect, test } from "bun:test";
import { queueView } from "../../schema/api/admin.ts";
import { instanceMemoryBytes } from "../../schema/memory.ts";
import { cpuDevice, makeManifest } from "../../test/support/cluster-facts.ts";
import { eventually } from "../../test/support/eventually.ts";
import { GatewayScene } from "../../test/support/gateway-scene.ts";
import { ManualClock } from "../../test/support/manual-clock.ts";
import { gate, say, someLoadTimings } from "../../test/support/scripted-worker.ts";

const manifest = makeManifest();
const oneInstance = instanceMemoryBytes(manifest.model, manifest.weights.bytes, {
  context_tokens: 128,
  slots: 4,
});
const starvation_ms = 10_000;

/** So many models on one worker with room for some of them. */
async function scene(models: number, room: number) {
  const clock = new ManualClock();
  const scene = new GatewayScene({ clock, config: { starvation_ms } });
  const deployed = [];
  for (let i = 0; i < models; i++) deployed.push(await scene.deploy());
  const worker = await scene.register(deployed, { devices: [cpuDevice(room * oneInstance)] });
  const ids = deployed.map((d) => d.id);
  const running = async () => (await scene.store.snapshot()).instances.map((i) => i.model_id);
  /** Time passes as it does beside the reconcile loop, with a worker that reports. */
  const pass = async (ms: number) => {
    for (let at = 0; at < ms; at += 250) {
      await clock.advance(250);
      await scene.heartbeat(worker);
    }
  };
  return { clock, scene, ids, running, pass };
}

/** Answers end when told, each by its own. */
function endless(of: GatewayScene): { open(): void }[] {
  const gates: ReturnType<typeof gate>[] = [];
  of.workers.onGenerate = async function* () {
    const end = gate();
    gates.push(end);
    await end.passed;
    yield* say(["ok"]);
  };
  return gates;
}

test("busy model evicted: no request for another model stops what works, however long it waits", async () => {
  const { scene: s, ids, running, pass } = await scene(2, 1.5);
  const [a = "", b = ""] = ids;
  const gates = endless(s);
  const working = s.chat(a);
  await eventually("a runs", () => gates.length === 1);
  const other = s.chat(b);
  await pass(5 * starvation_ms);
  expect(await running()).toEqual([a]);
  expect(s.workers.unloads).toEqual([]);
  expect(s.workers.cancels).toEqual([]);
  gates[0]?.open();
  expect((await working).status).toBe(200);
  await eventually("b runs", () => gates.length === 2);
  gates[1]?.open();
  expect((await other).status).toBe(200);
});

test("duplicate loads: a crowd for one cold model is one load, also while another model leaves", async () => {
  const { scene: s, ids } = await scene(2, 1.5);
  const [a = "", b = ""] = ids;
  expect((await s.chat(a)).status).toBe(200);
  const answers = await Promise.all(Array.from({ length: 30 }, () => s.chat(b)));
  for (const answer of answers) expect(answer.status).toBe(200);
  expect(s.workers.loads.map((l) => l.model_id)).toEqual([a, b]);
});

test("starvation: a model that is never idle makes room for another after the bound, and nothing of it is cut", async () => {
  const { clock, scene: s, ids, running, pass } = await scene(2, 1.5);
  const [a = "", b = ""] = ids;
  const gates = endless(s);
  const answers = [s.chat(a)];
  await eventually("a runs", () => gates.length === 1);
  const starved = s.chat(b);
  await eventually("b waits", async () => (await queue(s)).data.length === 1);
  // One more request for a always comes before the last one ends.
  for (let round = 1; clock.monotonicMs() < starvation_ms; round++) {
    answers.push(s.chat(a));
    await eventually("the next runs", () => gates.length === round + 1);
    gates[round - 1]?.open();
    await pass(1_000);
  }
  expect((await queue(s)).claims).toMatchObject([{ model_id: b }]);
  expect(await running()).toEqual([a]);
  // What comes for a now waits for its turn; what runs ends by itself, and b is next.
  const late = s.chat(a);
  await eventually("a waits", async () => (await queue(s)).data.length === 2);
  const before = gates.length;
  gates.at(-1)?.open();
  await eventually("b runs", () => gates.length === before + 1);
  expect(await running()).toEqual([b]);
  expect((await queue(s)).claims).toEqual([]);
  gates.at(-1)?.open();
  expect((await starved).status).toBe(200);
  await eventually("a runs again", () => gates.length === before + 2);
  gates.at(-1)?.open();
  for (const answer of await Promise.all([...answers, late])) expect(answer.status).toBe(200);
});

test("ping-pong: two busy models take turns no faster than the bound", async () => {
  const { clock, scene: s, ids, pass } = await scene(2, 1.5);
  const gates = endless(s);
  const answers: Promise<Response>[] = [];
  const begin_ms = clock.monotonicMs();
  // A request for each model every second, each answer as long.
  for (let second = 0; second < 60; second++) {
    answers.push(...ids.map((id) => s.chat(id)));
    await pass(1_000);
    for (const end of gates) end.open();
  }
  const swaps = s.workers.loads.length - 1;
  expect(swaps).toBeGreaterThan(1);
  expect(swaps).toBeLessThanOrEqual((clock.monotonicMs() - begin_ms) / starvation_ms + 1);
  for (let i = 0; i < 200 && s.workers.open + (await queue(s)).data.length > 0; i++) {
    for (const end of gates) end.open();
    await pass(1_000);
  }
  for (const answer of await Promise.all(answers)) expect(answer.status).toBe(200);
}, 20_000);

test("evicted before its use: a model that was just loaded serves the request it was loaded for", async () => {
  const { scene: s, ids } = await scene(2, 1.5);
  const [a = "", b = ""] = ids;
  const loaded = gate();
  s.workers.onLoad = async function* () {
    await loaded.passed;
    yield { type: "ready", timings: someLoadTimings };
  };
  const first = s.chat(a);
  await eventually("a loads", () => s.workers.loads.length === 1);
  const second = s.chat(b);
  await eventually("b waits", async () => (await queue(s)).data.length === 2);
  loaded.open();
  for (const answer of [await first, await second]) expect(answer.status).toBe(200);
  expect(s.workers.generations.map((g) => g.request.instance_id)).toEqual(
    s.workers.loads.map((l) => l.instance_id),
  );
});

test("loading as victim: what is loading is stopped by nobody, and its bytes are not promised again", async () => {
  const { scene: s, ids, running, pass } = await scene(3, 2.5);
  const [a = "", b = "", c = ""] = ids;
  const loaded = gate();
  s.workers.onLoad = async function* () {
    await loaded.passed;
    yield { type: "ready", timings: someLoadTimings };
  };
  const answers = [s.chat(a), s.chat(b), s.chat(c)];
  await eventually("two load", () => s.workers.loads.length === 2);
  await pass(2 * starvation_ms);
  expect(s.workers.loads).toHaveLength(2);
  expect(s.workers.unloads).toEqual([]);
  expect((await running()).toSorted()).toHaveLength(2);
  loaded.open();
  for (const answer of await Promise.all(answers)) expect(answer.status).toBe(200);
});

test("counted instead of measured: as many models stay as their bytes admit, whatever their number", async () => {
  const { scene: s, ids, running } = await scene(6, 5.5);
  for (const id of ids.slice(0, 5)) expect((await s.chat(id)).status).toBe(200);
  expect(await running()).toHaveLength(5);
  expect(s.workers.unloads).toEqual([]);
  expect((await s.chat(ids[5] ?? "")).status).toBe(200);
  expect(await running()).toHaveLength(5);
  expect(s.workers.unloads).toHaveLength(1);
});

test("needless swaps: requests that come as A B A A C A are served in three swaps", async () => {
  const { scene: s, ids } = await scene(3, 1.5);
  const gates = endless(s);
  const order = [0, 1, 0, 0, 2, 0].map((i) => ids[i] ?? "");
  const answers: Promise<Response>[] = [];
  for (const id of order) {
    answers.push(s.chat(id));
    await eventually(
      "it runs or waits",
      async () => gates.length + (await queue(s)).data.length >= answers.length,
    );
  }
  while (gates.length < order.length) {
    for (const end of gates) end.open();
    const served = gates.length;
    await eventually("the next run", () => gates.length > served || gates.length === order.length);
  }
  for (const end of gates) end.open();
  for (const answer of await Promise.all(answers)) expect(answer.status).toBe(200);
  expect(s.workers.loads.map((l) => l.model_id)).toHaveLength(3);
});

async function queue(of: GatewayScene) {
  return queueView.parse(await (await of.get("/admin/v1/queue")).json());
}
