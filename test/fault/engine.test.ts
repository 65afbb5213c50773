/** Engines that die or are fed damaged weights: one instance ends with its reason, everything else goes on. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import path from "node:path";
import { errorBody } from "../../schema/error.ts";
import { makeModel } from "../models/make-model.ts";
import { sampleModelPath, TestCluster } from "../support/cluster.ts";
import { eventually } from "../support/eventually.ts";
import { isAlive } from "../support/processes.ts";
import { readSse } from "../support/sse-client.ts";

let cluster: TestCluster;
beforeAll(async () => {
  cluster = await TestCluster.start();
}, 120_000);
afterAll(() => cluster?.close(), 60_000);

function flipBit(file: string, offset: number): void {
  const descriptor = openSync(file, "r+");
  const byte = new Uint8Array(1);
  readSync(descriptor, byte, 0, 1, offset);
  writeSync(descriptor, new Uint8Array([(byte[0] ?? 0) ^ 0x40]), 0, 1, offset);
  closeSync(descriptor);
}

const chat = (model: string, extra: object = {}) =>
  cluster.post("/v1/chat/completions", {
    model,
    messages: [{ role: "user", content: "Who is there?" }],
    max_tokens: 8,
    ...extra,
  });

test("a stream whose engine is killed waits for another one and goes on where it was, its instance being failed", async () => {
  // Large enough that an answer takes seconds: the sample model's would be over before the kill.
  const gguf = path.join(cluster.folder, "slow.gguf");
  await makeModel({ architecture: "llama", size_bytes: 120e6, type: "f16", out: gguf, seed: 1 });
  await cluster.deploy("mortal", gguf, { context_tokens: 256 });
  expect((await chat("mortal", { max_tokens: 1 })).status).toBe(200);
  const pid = (await cluster.workerStatus()).instances.find((i) => i.model_id === "mortal")?.pid;
  if (!pid) throw new Error("no engine process");
  const response = await chat("mortal", { stream: true, max_tokens: 200, ignore_eos: true });
  let isKilled = false;
  let last = "";
  const indices: number[] = [];
  for await (const received of readSse(response)) {
    if (received.kind !== "event") continue;
    last = received.data;
    const index = Number(/:0\.(-?\d+)$/.exec(received.id ?? "")?.[1] ?? -1);
    if (index >= 0) indices.push(index);
    if (isKilled || !/:0\.\d+$/.test(received.id ?? "")) continue;
    isKilled = true;
    process.kill(pid, "SIGKILL");
  }
  expect(isKilled).toBe(true);
  expect(last).toBe("[DONE]");
  expect(indices).toEqual(indices.toSorted((a, b) => a - b));
  expect(indices.at(-1)).toBe(200);
  await eventually("the dead engine's instance is failed", async () =>
    (await cluster.adminInstances(10)).some(
      (i) => i.model_id === "mortal" && i.state === "failed" && i.error?.code === "engine_killed",
    ),
  );
  const worker = cluster.workers[0];
  expect(worker && isAlive(worker.pid)).toBe(true);
  expect(
    (
      await eventually("it answers again", async () => {
        const again = await chat("mortal");
        return again.status === 200 ? again : null;
      })
    ).status,
  ).toBe(200);
}, 90_000);

test("weights that changed on disk are never served: the load fails naming file and offset", async () => {
  const offset = 1_000_003;
  const fresh = await TestCluster.start();
  try {
    await fresh.deploy("damaged");
    const { directory } = await fresh.convert(sampleModelPath);
    flipBit(path.join(directory, "weights.bin"), offset);
    const response = await fresh.post("/v1/completions", { model: "damaged", prompt: "x", max_tokens: 4 });
    const { error } = errorBody.parse(await response.json());
    expect(error.code).toBe("checkpoint_invalid");
    expect(error.message).toContain("weights.bin");
    expect(error.message).toMatch(/offset \d+/);
    expect((await fresh.workerStatus()).state).toBe("ready");
  } finally {
    await fresh.close();
  }
}, 120_000);

test("a worker without the checkpoint is not chosen and the client is told what is missing", async () => {
  await cluster.deploy("absent");
  const manifest = (await cluster.convert(sampleModelPath)).manifest;
  const strange = { ...manifest, digest: "0".repeat(64) };
  const deployed = await cluster.post("/admin/v1/models", { id: "elsewhere", manifest: strange });
  if (deployed.status === 201) {
    const { error } = errorBody.parse(await (await chat("elsewhere")).json());
    expect(error.code).toBe("checkpoint_unavailable");
  } else {
    expect(deployed.status).toBeGreaterThanOrEqual(400);
  }
}, 60_000);
