/** The reserve of engine processes in a real worker with the real engine libraries. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { convertGguf } from "../../worker/checkpoints/import.ts";
import { sampleModelPath } from "../support/cluster.ts";
import { descendantsOf } from "../support/command-line.ts";
import { eventually } from "../support/eventually.ts";
import { isAlive, pssBytes } from "../support/processes.ts";
import { generatedText, WorkerHost } from "../support/worker-host.ts";

const mebibyte = 1024 * 1024;

let host: WorkerHost;
let digest: string;
beforeAll(async () => {
  host = await WorkerHost.start({ variables: { SLLM_WORKER_STANDBY_SKELETONS: "0" } });
  ({ digest } = await convertGguf({ source: sampleModelPath, store_dir: host.store }));
}, 60_000);
afterAll(() => host?.close(), 60_000);

/** Process ids of the reserve, once it is full: all engines that no instance has. */
async function standbys(of: WorkerHost, count = 1): Promise<number[]> {
  return eventually("the reserve is full", async () => {
    const { standby_engines, instances } = await of.status();
    const taken = new Set(instances.map((instance) => instance.pid));
    const free = descendantsOf(of.process.pid).filter((pid) => !taken.has(pid));
    return standby_engines === count && free.length === count ? free : undefined;
  });
}

test("a load takes the process in reserve, and the next load the one that replaced it", async () => {
  for (let n = 0; n < 2; n++) {
    const [standby] = await standbys(host);
    const instance_id = await host.loadReady(digest);
    expect(await host.enginePid(instance_id)).toBe(standby ?? -1);
    expect((await host.generate(instance_id)).at(-1)).toMatchObject({ type: "done", completion_tokens: 20 });
    const [next] = await standbys(host);
    expect(next).not.toBe(standby);
    await host.client.unload(host.address, instance_id, { if_idle: true });
  }
}, 30_000);

test("more loads at once than the reserve holds all become ready", async () => {
  const [standby = -1] = await standbys(host);
  const loads = await Promise.all(Array.from({ length: 3 }, () => host.load(digest)));
  expect(loads.map((load) => load.last.type)).toEqual(["ready", "ready", "ready"]);
  const pids = await Promise.all(loads.map((load) => host.enginePid(load.instance_id)));
  expect(new Set(pids).size).toBe(3);
  expect(pids).toContain(standby);
  for (const { instance_id } of loads) {
    await host.client.unload(host.address, instance_id, { if_idle: true });
  }
}, 30_000);

test("a process in reserve is no instance, and small", async () => {
  const [standby = -1] = await standbys(host);
  expect((await host.status()).instances).toEqual([]);
  expect(pssBytes([standby])).toBeLessThan(64 * mebibyte);
});

test("a killed process in reserve is replaced, and loads go on", async () => {
  const [standby = -1] = await standbys(host);
  process.kill(standby, "SIGKILL");
  await eventually("it is gone", () => !isAlive(standby));
  const instance_id = await host.loadReady(digest);
  await host.client.unload(host.address, instance_id, { if_idle: true });
  expect(await standbys(host)).not.toContain(standby);
}, 30_000);

test.each(["stop", "kill"] as const)(
  "after a %s of the worker no process is left",
  async (how) => {
    const own = await WorkerHost.start({ variables: { SLLM_WORKER_STANDBY_ENGINES: "2" } });
    try {
      const pids = await standbys(own, 2);
      if (how === "stop") expect(await own.process.stop()).toBe(0);
      else own.process.kill("SIGKILL");
      await eventually("all are gone", () => pids.every((pid) => !isAlive(pid)));
    } finally {
      await own.close();
    }
  },
  30_000,
);

test("without a reserve every load starts its own process", async () => {
  const own = await WorkerHost.start({ variables: { SLLM_WORKER_STANDBY_ENGINES: "0" } });
  try {
    await convertGguf({ source: sampleModelPath, store_dir: own.store });
    expect(descendantsOf(own.process.pid)).toEqual([]);
    const pid = await own.enginePid(await own.loadReady(digest));
    expect(descendantsOf(own.process.pid)).toEqual([pid]);
    expect((await own.status()).standby_engines).toBe(0);
  } finally {
    await own.close();
  }
}, 30_000);

test("engine libraries that are missing leave the reserve empty and the worker up", async () => {
  const own = await WorkerHost.start({ variables: { SLLM_ENGINE_LIBRARIES: "/nowhere/libraries" } });
  try {
    await eventually("the reserve has failed", () => own.process.log().includes("standby_ended"));
    expect(own.process.log()).toContain("/nowhere/libraries");
    expect(await own.status()).toMatchObject({ state: "ready", standby_engines: 0 });
  } finally {
    await own.close();
  }
}, 30_000);

test("a model that has stopped is built ahead, and its next start only brings its weights", async () => {
  const own = await WorkerHost.start({ variables: { SLLM_WORKER_STANDBY_ENGINES: "0" } });
  try {
    await convertGguf({ source: sampleModelPath, store_dir: own.store });
    const first = await own.loadReady(digest);
    const text = generatedText(await own.generate(first));
    await own.client.unload(own.address, first, { if_idle: true });
    await eventually("the model is built", async () => (await own.status()).standby_skeletons === 1);
    const [standby] = descendantsOf(own.process.pid);
    const { instance_id, last } = await own.load(digest);
    expect(last).toMatchObject({
      type: "ready",
      timings: { model_build_ms: 0, disk_read_bytes: 0, resume_ms: 0 },
    });
    expect(await own.enginePid(instance_id)).toBe(standby ?? -1);
    expect(generatedText(await own.generate(instance_id))).toBe(text);
    expect((await own.status()).standby_skeletons).toBe(0);
  } finally {
    await own.close();
  }
}, 30_000);
