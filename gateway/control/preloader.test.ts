/** Reading ahead, on a clock moved by hand and scripted workers. */
import { expect, test } from "bun:test";
import type { DeployRequest } from "../../schema/api/admin.ts";
import { makePlacement } from "../../test/support/cluster-facts.ts";
import { GatewayScene } from "../../test/support/gateway-scene.ts";
import { ManualClock } from "../../test/support/manual-clock.ts";

async function scene(settings: Partial<DeployRequest["settings"]>, forecast = false) {
  const clock = new ManualClock();
  const scene = new GatewayScene({ clock, config: { forecast } });
  const model = await scene.deploy({ settings: { slots: 4, keep_alive_ms: 1_000, ...settings } });
  const worker = await scene.register([model]);
  await scene.gateway.start();
  const pass = async (ms: number, placements = worker.placements) => {
    for (let at = 0; at < ms; at += 500) {
      await scene.heartbeat(worker, { placements });
      await clock.advance(500);
    }
  };
  return { scene, model, worker, pass };
}

test("a model that is deployed so is read into host memory once, and nothing runs", async () => {
  const { scene: s, model, worker, pass } = await scene({ preload: true });
  await pass(1_000);
  const { digest, weights } = model.manifest;
  expect(s.workers.preloads).toEqual([{ worker_id: worker.worker_id, checkpoint: digest }]);
  const host = makePlacement({ checkpoint: digest, tier: "host", bytes_present: weights.bytes });
  await pass(60_000, [...worker.placements, host]);
  expect(s.workers.preloads).toHaveLength(1);
  expect(s.workers.loads).toEqual([]);
  await s.gateway.stop();
});

test("a worker without room is asked again, but not in a loop", async () => {
  const { scene: s, pass } = await scene({ preload: true });
  s.workers.onPreload = () => "no_room";
  await pass(65_000);
  expect(s.workers.preloads).toHaveLength(3);
  await s.gateway.stop();
});

test("what was lately asked for is read ahead by forecast, where that is wanted", async () => {
  for (const forecast of [false, true]) {
    const { scene: s, model, pass } = await scene({}, forecast);
    for (let i = 0; i < 3; i++) await (await s.chat(model.id)).text();
    await pass(1_000);
    // It runs: nothing is to be read.
    expect(s.workers.preloads).toEqual([]);
    await pass(3_000);
    expect(s.workers.preloads).toHaveLength(forecast ? 1 : 0);
    await s.gateway.stop();
  }
});

test("a model that nobody wants ahead is left where it is", async () => {
  const { scene: s, pass } = await scene({});
  await pass(5_000);
  expect(s.workers.preloads).toEqual([]);
  await s.gateway.stop();
});
