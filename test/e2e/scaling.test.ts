/** Instances that come before requests ask for each, and go when nobody does: a gateway and two workers, all real. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { sampleModelPath, TestCluster } from "../support/cluster.ts";
import { eventually } from "../support/eventually.ts";

let cluster: TestCluster;
beforeAll(async () => {
  cluster = await TestCluster.start({
    workers: 2,
    gateway: { SLLM_GATEWAY_PARK_MS: "1500" },
    worker: { SLLM_WORKER_STANDBY_SKELETONS: "0" },
  });
}, 120_000);
afterAll(() => cluster?.close(), 60_000);

const states = async (model: string) =>
  (await cluster.adminInstances()).filter((i) => i.model_id === model).map((i) => i.state);

const ask = (model: string, max_tokens: number) =>
  cluster.post("/v1/chat/completions", {
    model,
    messages: [{ role: "user", content: "Who is there?" }],
    max_tokens,
    ignore_eos: true,
  });

test("a burst starts a second instance; when it is over they park, and then they go", async () => {
  const settings = { slots: 1, queue_delay_ms: 0, keep_alive_ms: 1_000, context_tokens: 256 };
  await cluster.deploy("crowd", undefined, settings);
  const answers = Array.from({ length: 24 }, () => ask("crowd", 120));
  const workers = await eventually("a second instance runs", async () => {
    const ready = (await cluster.adminInstances()).filter(
      (i) => i.model_id === "crowd" && i.state === "ready",
    );
    return ready.length >= 2 ? new Set(ready.map((i) => i.worker_id)) : undefined;
  });
  expect(workers.size).toBe(2);
  for (const answer of await Promise.all(answers)) expect(answer.status, await answer.text()).toBe(200);
  await eventually("both are parked", async () => {
    const now = await states("crowd");
    return now.length === 2 && now.every((state) => state === "parked");
  });
  await eventually("both are gone", async () => (await states("crowd")).length === 0);
}, 90_000);

test("a minimum is there without a request, stays, and goes when it is taken back", async () => {
  const { manifest } = await cluster.convert(sampleModelPath);
  const settings = { keep_alive_ms: 500, context_tokens: 256 };
  await cluster.deploy("always", undefined, { ...settings, min_instances: 1 });
  await eventually("it runs", async () => (await states("always")).includes("ready"));
  const since = Date.now();
  await eventually("its keep-alive is long over", () => Date.now() - since > 2_500);
  expect(await states("always")).toEqual(["ready"]);
  const replaced = await cluster.post("/admin/v1/models", {
    id: "always",
    manifest,
    settings,
    replace: true,
  });
  expect(replaced.status).toBe(201);
  await eventually("it is parked", async () => (await states("always")).includes("parked"));
}, 60_000);

test("what is deployed to be preloaded lies in host memory before anybody asks", async () => {
  await cluster.deploy("ready-made", undefined, { preload: true, context_tokens: 256 });
  const digest = (await cluster.convert(sampleModelPath)).digest;
  await eventually("a host has it in memory", async () =>
    (await cluster.adminWorkers()).some((w) =>
      w.placements.some((p) => p.checkpoint === digest && p.tier === "host" && p.state === "present"),
    ),
  );
  const answer = await ask("ready-made", 4);
  expect(answer.status).toBe(200);
  const id = answer.headers.get("x-sllm-generation") ?? "";
  const record = await eventually("it is recorded", async () => {
    const found = await cluster.adminGeneration(id);
    return found.timeline_ms ? found : undefined;
  });
  expect(record).toMatchObject({ cold_start: true, timeline_ms: { disk_read: 0 } });
}, 60_000);
