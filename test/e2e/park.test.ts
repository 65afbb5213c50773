/** A model that is parked between requests: real gateway, worker and engines, from its keep-alive to its end. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { parkedMemoryBytes } from "../../schema/memory.ts";
import { TestCluster } from "../support/cluster.ts";
import { eventually } from "../support/eventually.ts";
import { isAlive } from "../support/processes.ts";

const park_ms = 4_000;

let cluster: TestCluster;
beforeAll(async () => {
  cluster = await TestCluster.start({
    gateway: { SLLM_GATEWAY_PARK_MS: String(park_ms) },
    worker: { SLLM_WORKER_STANDBY_SKELETONS: "0" },
  });
}, 120_000);
afterAll(() => cluster?.close(), 60_000);

async function ask(model: string): Promise<{ text: string; generation_id: string }> {
  const response = await cluster.post("/v1/chat/completions", {
    model,
    messages: [{ role: "user", content: "Who is there?" }],
    temperature: 0,
    max_tokens: 8,
  });
  const body = await response.json();
  expect(response.status, JSON.stringify(body)).toBe(200);
  return {
    text: body.choices[0].message.content,
    generation_id: response.headers.get("x-sllm-generation") ?? "",
  };
}

const instances = async (model: string) =>
  (await cluster.adminInstances(20)).filter((i) => i.model_id === model);
const live = async (model: string) =>
  (await instances(model)).find((i) => i.state !== "gone" && i.state !== "failed");
const atWorker = async (instance_id: string) =>
  (await cluster.workerStatus()).instances.find((i) => i.instance_id === instance_id);
const reserved = async () => (await cluster.adminWorkers())[0]?.devices[0]?.reserved_bytes ?? -1;

async function parked(model: string): Promise<{ instance_id: string; pid: number }> {
  const instance_id = await eventually("it is parked", async () => {
    const found = await live(model);
    return found?.state === "parked" ? found.instance_id : undefined;
  });
  const found = await atWorker(instance_id);
  expect(found?.state).toBe("parked");
  if (!found?.pid) throw new Error("the parked instance has no process");
  return { instance_id, pid: found.pid };
}

test("an idle model is parked, comes back in its process with the same words, and ends later", async () => {
  await cluster.deploy("dozer", undefined, { keep_alive_ms: 500, context_tokens: 256 });
  const first = await ask("dozer");
  const running = await reserved();
  const { instance_id, pid } = await parked("dozer");
  await eventually("little is booked", async () => (await reserved()) === parkedMemoryBytes());
  expect(running).toBeGreaterThan(parkedMemoryBytes());
  const second = await ask("dozer");
  expect(second.text).toBe(first.text);
  expect(await atWorker(instance_id)).toMatchObject({ pid });
  const record = await eventually("it is recorded", async () => {
    const found = await cluster.adminGeneration(second.generation_id);
    return found.timeline_ms ? found : undefined;
  });
  expect(record).toMatchObject({ cold_start: true, instance_id });
  expect(record.timeline_ms).toMatchObject({ process_start: 0, model_build: 0, disk_read: 0 });
  expect(record.timeline_ms?.resume).toBeGreaterThan(0);
  await parked("dozer");
  await eventually("it has ended", async () => (await live("dozer")) === undefined, 2 * park_ms + 10_000);
  await eventually("its process is gone", () => !isAlive(pid));
  await eventually("nothing is booked", async () => (await reserved()) === 0);
}, 60_000);

test("a parked instance outlives a restart of the gateway", async () => {
  await cluster.deploy("keeper", undefined, { keep_alive_ms: 500, context_tokens: 256 });
  const first = await ask("keeper");
  const { instance_id, pid } = await parked("keeper");
  const { port } = new URL(cluster.url);
  await cluster.gateway.stop();
  await cluster.startGateway(port);
  await cluster.workersReady();
  expect((await ask("keeper")).text).toBe(first.text);
  expect(await atWorker(instance_id)).toMatchObject({ pid });
}, 60_000);

test("a killed parked engine is noticed, and the next request is served all the same", async () => {
  await cluster.deploy("victim", undefined, { keep_alive_ms: 500, context_tokens: 256 });
  const first = await ask("victim");
  const { instance_id, pid } = await parked("victim");
  process.kill(pid, "SIGKILL");
  await eventually("it has failed", async () =>
    (await instances("victim")).some((i) => i.instance_id === instance_id && i.state === "failed"),
  );
  expect((await ask("victim")).text).toBe(first.text);
}, 60_000);
