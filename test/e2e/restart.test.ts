/** Everything stops, by order and by force, and nothing is forgotten or registered twice. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { TestCluster } from "../support/cluster.ts";
import { eventually } from "../support/eventually.ts";
import { isAlive } from "../support/processes.ts";

let cluster: TestCluster;
beforeAll(async () => {
  cluster = await TestCluster.start();
  await cluster.deploy("romeo");
}, 120_000);
afterAll(() => cluster?.close(), 60_000);

const answer = async () => {
  const response = await cluster.post("/v1/completions", {
    model: "romeo",
    prompt: "ROMEO:\n",
    max_tokens: 8,
    temperature: 0,
  });
  expect(response.status, await response.clone().text()).toBe(200);
  return (await response.json()).choices[0].text as string;
};

test("a restart of everything keeps the deployed model and one row per worker", async () => {
  const before = await answer();
  const [worker] = await cluster.adminWorkers();
  const pids = (await cluster.workerStatus()).instances.flatMap((i) => i.pid ?? []);
  await cluster.stopAll();
  expect(pids.length).toBe(1);
  expect(pids.some(isAlive)).toBe(false);

  await cluster.startAll();
  const models = await (await fetch(`${cluster.url}/v1/models`)).json();
  expect(models.data.map((m: { id: string }) => m.id)).toEqual(["romeo"]);
  const workers = await cluster.adminWorkers();
  expect(workers.map((w) => w.worker_id)).toEqual([worker?.worker_id ?? ""]);
  expect(await answer()).toBe(before);
  const live = (await cluster.adminInstances()).filter((i) => i.state === "ready");
  expect(live).toHaveLength(1);
}, 120_000);

test("a killed gateway comes back with its state and finds the running instance again", async () => {
  await answer();
  const [instance] = (await cluster.workerStatus()).instances.filter((i) => i.state === "ready");
  const port = new URL(cluster.url).port;
  cluster.gateway.kill("SIGKILL");
  await cluster.gateway.exited;
  await cluster.startGateway(port);
  await cluster.workersReady();
  await answer();
  const ready = (await cluster.workerStatus()).instances.filter((i) => i.state === "ready");
  expect(ready.map((i) => i.instance_id)).toEqual([instance?.instance_id ?? ""]);
}, 120_000);

test("a killed worker takes its engines along and is replaced by the next one", async () => {
  await answer();
  const pids = (await cluster.workerStatus()).instances.flatMap((i) => i.pid ?? []);
  cluster.workers[0]?.kill("SIGKILL");
  await eventually("no engine outlives its worker", () => !pids.some(isAlive));
  await cluster.startWorker(0);
  await cluster.workersReady();
  expect((await answer()).length).toBeGreaterThan(0);
}, 120_000);
