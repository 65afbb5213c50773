/** What the admin API tells of the scheduler: what it learned, who waits, and why a request ran where it did. */
import { expect, test } from "bun:test";
import { adminEstimateList, explainedRequest, queueView } from "../../schema/api/admin.ts";
import { eventually } from "../support/eventually.ts";
import { GatewayScene } from "../support/gateway-scene.ts";
import { gate, someLoadTimings } from "../support/scripted-worker.ts";

test("GET /admin/v1/estimates shows what starts have taught, with the errors of the estimates", async () => {
  const scene = new GatewayScene();
  await scene.gateway.start();
  const { model } = await scene.warm();
  await scene.gateway.stop();
  const { data } = adminEstimateList.parse(await (await scene.get("/admin/v1/estimates")).json());
  const inits = data.filter((e) => e.quantity === "init");
  expect(inits).toHaveLength(3);
  expect(inits).toContainEqual(
    expect.objectContaining({ model_id: model.id, worker_id: null, device_kind: "cpu", detail: "cold/disk" }),
  );
  const [start] = data.filter((e) => e.quantity === "start");
  expect(start).toMatchObject({ value: null, observations: 1 });
  expect(start?.error_p90).toBeGreaterThanOrEqual(0);
});

test("GET /admin/v1/queue says who waits for what, at which place and until when", async () => {
  const scene = new GatewayScene();
  const { model } = await scene.ready();
  const loaded = gate();
  scene.workers.onLoad = async function* () {
    await loaded.passed;
    yield { type: "ready", timings: someLoadTimings };
  };
  const answers = [scene.chat(model.id), scene.chat(model.id)];
  const waiting = async () => queueView.parse(await (await scene.get("/admin/v1/queue")).json()).data;
  await eventually("both wait", async () => (await waiting()).length === 2);
  const [first, second] = await waiting();
  expect(first).toMatchObject({ model_id: model.id, state: "loading", position: 1 });
  expect(second).toMatchObject({ model_id: model.id, state: "loading", position: 2 });
  expect(second?.eta_ms).toBeGreaterThanOrEqual(0);
  expect(second?.remaining_ms).toBeGreaterThan(0);
  loaded.open();
  for (const answer of await Promise.all(answers)) expect(answer.status).toBe(200);
  expect(await waiting()).toEqual([]);
});

test("GET /admin/v1/requests/{id} tells why a request ran where it did, and what was expected", async () => {
  const scene = new GatewayScene();
  const { model, worker } = await scene.ready();
  const { id } = (await (await scene.chat(model.id)).json()) as { id: string };
  await scene.gateway.stop();
  const path = `/admin/v1/requests/${id.slice(id.lastIndexOf("-") + 1)}`;
  const explained = explainedRequest.parse(await (await scene.get(path)).json());
  expect(explained).toMatchObject({ model_id: model.id, state: "finished", cold_start: true });
  const [decision] = explained.decisions ?? [];
  expect(decision).toMatchObject({ action: "start", times: 1, worker_id: worker.worker_id, tier: "disk" });
  expect(decision?.estimate_ms).toBeGreaterThan(0);
  expect(decision?.reason).toContain("disk");
  expect((await scene.get(`/admin/v1/requests/${"0".repeat(32)}`)).status).toBe(404);
});
