/** Models that do not fit together: idle ones make room, busy and fresh ones never do. */
import { expect, test } from "bun:test";
import { errorBody } from "../../schema/error.ts";
import { instanceMemoryBytes } from "../../schema/memory.ts";
import { cpuDevice, makeManifest } from "../../test/support/cluster-facts.ts";
import { eventually } from "../../test/support/eventually.ts";
import { GatewayScene } from "../../test/support/gateway-scene.ts";
import { gate, say, someLoadTimings } from "../../test/support/scripted-worker.ts";

const manifest = makeManifest();
const oneInstance = instanceMemoryBytes(manifest.model, manifest.weights.bytes, {
  context_tokens: 128,
  slots: 4,
});

/** Two models on one worker with room for one of them. */
async function tightScene() {
  const scene = new GatewayScene({ config: { hold_ms: 5_000 } });
  const a = await scene.deploy();
  const b = await scene.deploy();
  await scene.register([a, b], { devices: [cpuDevice(1.5 * oneInstance)] });
  const running = async () => (await scene.store.snapshot()).instances.map((i) => i.model_id);
  return { scene, a, b, running };
}

test("an idle instance makes room for another model", async () => {
  const { scene, a, b, running } = await tightScene();
  await (await scene.chat(a.id)).text();
  expect((await scene.chat(b.id)).status).toBe(200);
  expect(await running()).toEqual([b.id]);
  expect(scene.workers.unloads).toHaveLength(1);
});

test("a busy instance is not stopped: the other model waits until it is idle", async () => {
  const { scene, a, b, running } = await tightScene();
  const finish = gate();
  scene.workers.onGenerate = async function* () {
    await finish.passed;
    yield* say(["late"]);
  };
  const first = scene.chat(a.id);
  await eventually("a runs", () => scene.workers.open === 1);
  const second = scene.chat(b.id, { stream: true });
  const response = await second;
  expect(await running()).toEqual([a.id]);
  expect(scene.workers.unloads).toEqual([]);
  finish.open();
  expect((await first).status).toBe(200);
  expect(await response.text()).toContain("late");
  expect(await running()).toEqual([b.id]);
});

test("two models that take turns are both served, whoever comes first", async () => {
  const { scene, a, b } = await tightScene();
  scene.workers.onLoad = async function* () {
    await new Promise((resolve) => setTimeout(resolve, 5));
    yield { type: "ready", timings: someLoadTimings };
  };
  const answers = Array.from({ length: 24 }, (_, i) => scene.chat((i % 2 === 0 ? a : b).id));
  for (const answer of await Promise.all(answers)) expect(answer.status).toBe(200);
  expect(scene.workers.loads.length).toBeLessThanOrEqual(4);
});

test("a model larger than every device is refused at once, with its size", async () => {
  const scene = new GatewayScene();
  const model = await scene.deploy();
  await scene.register([model], { devices: [cpuDevice(oneInstance - 1)] });
  const response = await scene.chat(model.id);
  expect(response.status).toBe(503);
  const { error } = errorBody.parse(await response.json());
  expect(error.code).toBe("model_too_large");
  expect(error.message).toContain(String(oneInstance));
});

test("a start that another gateway's booking made impossible is decided again", async () => {
  const { scene, a, b } = await tightScene();
  const other = new GatewayScene({ store: scene.store, workers: scene.workers });
  await scene.get("/v1/models");
  // The other gateway books the memory; this one still believes it free.
  await (await other.chat(a.id)).text();
  expect((await scene.chat(b.id)).status).toBe(200);
  expect(scene.log.some((l) => l.event === "start_refused" && l.fields.reason === "no_memory")).toBe(true);
});
