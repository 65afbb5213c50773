/** From zero to zero: fifty requests start one instance, work is never cut, idleness frees the memory. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import path from "node:path";
import { makeModel } from "../models/make-model.ts";
import { TestCluster } from "../support/cluster.ts";
import { eventually } from "../support/eventually.ts";
import { isAlive, pssBytes } from "../support/processes.ts";
import { readSse } from "../support/sse-client.ts";

/** Large against the noise of two JavaScript heaps. */
const weights_bytes = 120e6;

let cluster: TestCluster;
beforeAll(async () => {
  // Nothing is kept for a model that nobody uses, so that what is left is what the system cannot give back.
  cluster = await TestCluster.start({
    gateway: { SLLM_GATEWAY_PARK_MS: "0" },
    worker: { SLLM_WORKER_HOST_CACHE_BYTES: "0" },
  });
}, 120_000);
afterAll(() => cluster?.close(), 60_000);

const chat = (model: string, extra: object = {}) =>
  cluster.post("/v1/chat/completions", {
    model,
    messages: [{ role: "user", content: "Who is there?" }],
    temperature: 0,
    max_tokens: 8,
    ...extra,
  });

test("fifty concurrent requests to a cold model are all answered by one instance", async () => {
  await cluster.deploy("crowd", undefined, { slots: 8 });
  const answers = await Promise.all(Array.from({ length: 50 }, () => chat("crowd")));
  const texts = await Promise.all(
    answers.map(async (answer) => {
      const body = await answer.json();
      expect(answer.status, JSON.stringify(body)).toBe(200);
      return body.choices[0].message.content as string;
    }),
  );
  expect(texts.every((text) => text.length > 0)).toBe(true);
  const all = (await cluster.adminInstances()).filter((i) => i.model_id === "crowd");
  expect(all.map((i) => i.state)).toEqual(["ready"]);
  expect((await cluster.workerStatus()).instances.filter((i) => i.model_id === "crowd")).toHaveLength(1);
}, 90_000);

test("an idle instance is stopped after its keep-alive and its memory is gone", async () => {
  const worker = cluster.workers[0];
  if (!worker) throw new Error("no worker");
  const enginePids = async () =>
    (await cluster.workerStatus()).instances.flatMap((i) => (i.pid === null ? [] : [i.pid]));
  const gguf = path.join(cluster.folder, "random.gguf");
  await makeModel({ architecture: "llama", size_bytes: weights_bytes, type: "f16", out: gguf, seed: 1 });
  await cluster.deploy("brief", gguf, { keep_alive_ms: 1_500, context_tokens: 256 });
  const cycle = async () => {
    const before = await enginePids();
    expect((await chat("brief")).status).toBe(200);
    const own = (await enginePids()).filter((pid) => !before.includes(pid));
    expect(own).toHaveLength(1);
    const running_bytes = pssBytes([worker.pid, ...before, ...own]);
    await eventually("the instance is gone", () => !own.some(isAlive), 15_000);
    await eventually("its row has ended", async () =>
      (await cluster.adminInstances()).every((i) => i.model_id !== "brief" || i.state === "gone"),
    );
    // The store gives memory back in the background.
    let idle_bytes = running_bytes;
    await eventually("the weights' memory is given back", async () => {
      const earlier = idle_bytes;
      await Bun.sleep(200);
      idle_bytes = pssBytes([worker.pid, ...before]);
      return running_bytes - idle_bytes > weights_bytes && earlier - idle_bytes < 1e6;
    });
    return { running_bytes, idle_bytes };
  };

  const first = await cycle();
  const second = await cycle();
  expect(first.running_bytes - first.idle_bytes).toBeGreaterThan(weights_bytes);
  expect(second.running_bytes - second.idle_bytes).toBeGreaterThan(weights_bytes);
  expect(Math.abs(second.idle_bytes - first.idle_bytes)).toBeLessThan(weights_bytes / 8);
}, 90_000);

test("running work outlives a keep-alive of nothing", async () => {
  await cluster.deploy("busy", undefined, { keep_alive_ms: 0 });
  const response = await chat("busy", { stream: true, max_tokens: 200, ignore_eos: true });
  let done = false;
  for await (const received of readSse(response)) {
    expect(received.data).not.toContain('"error"');
    if (received.data === "[DONE]") done = true;
  }
  expect(done).toBe(true);
  await eventually("it is stopped afterwards", async () =>
    (await cluster.adminInstances()).every((i) => i.model_id !== "busy" || i.state === "gone"),
  );
}, 60_000);

test("requests that arrive while an idle instance is being stopped are still answered", async () => {
  await cluster.deploy("flicker", undefined, { keep_alive_ms: 0 });
  for (let round = 0; round < 8; round++) {
    const answers = await Promise.all([chat("flicker"), chat("flicker")]);
    for (const answer of answers) expect(answer.status, await answer.text()).toBe(200);
    await Bun.sleep(round * 60);
  }
}, 120_000);

test("a deleted model is gone for clients and its instance ends", async () => {
  await cluster.deploy("leaving");
  expect((await chat("leaving")).status).toBe(200);
  const deleted = await fetch(`${cluster.url}/admin/v1/models/leaving`, { method: "DELETE" });
  expect(deleted.ok).toBe(true);
  expect((await chat("leaving")).status).toBe(404);
  await eventually("no instance is left", async () =>
    (await cluster.workerStatus()).instances.every((i) => i.model_id !== "leaving" || i.pid === null),
  );
}, 60_000);
