/**
 * A worker with a disk budget: conversions make room by evicting what nobody deployed, pinned ones stay, and the
 * gateway's placements follow what lies there.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import path from "node:path";
import { makeModel } from "../models/make-model.ts";
import { TestCluster } from "../support/cluster.ts";
import { programs, runProgram } from "../support/command-line.ts";
import { eventually } from "../support/eventually.ts";

const modelBytes = 24_000_000;
/** Room for two of the models and a half. */
const budget = String(Math.round(2.5 * modelBytes));

let cluster: TestCluster;
beforeAll(async () => {
  cluster = await TestCluster.start({ worker: { SLLM_WORKER_DISK_BYTES: budget } });
}, 120_000);
afterAll(() => cluster?.close(), 60_000);

const sllm = (...args: string[]) =>
  runProgram(programs.sllm, args, {
    folder: cluster.folder,
    variables: { SLLM_DATA_DIR: cluster.folder, SLLM_WORKER_DISK_BYTES: budget },
  });

async function makeSource(seed: number): Promise<string> {
  const out = path.join(cluster.folder, `model-${seed}.gguf`);
  await makeModel({ out, architecture: "llama", size_bytes: modelBytes, type: "f16", seed });
  return out;
}

/** Converts by the command line and returns the digest. */
async function convert(seed: number): Promise<string> {
  const { out, err, status } = await sllm("convert", await makeSource(seed), "--json");
  if (status !== 0) throw new Error(err);
  return String(JSON.parse(out).digest);
}

const onDisk = () => readdirSync(cluster.storeFolder).filter((name) => /^[0-9a-f]{64}$/.test(name));
const placed = async () =>
  (await cluster.adminWorkers())
    .flatMap((worker) => worker.placements)
    .filter((p) => p.tier === "disk" && p.state === "present")
    .map((p) => p.checkpoint)
    .sort();

test("room is made of what nobody deployed or pinned, oldest first, and placements follow", async () => {
  const deployed = await convert(1);
  await cluster.deploy("kept", path.join(cluster.folder, "model-1.gguf"));
  const second = await convert(2);
  await eventually("both are placed", async () => (await placed()).length === 2);
  // A third fits only in the place of the second; first it is pinned, and nothing fits.
  expect(await sllm("pin", second)).toMatchObject({ status: 0 });
  const refused = await sllm("convert", await makeSource(3));
  expect(refused).toMatchObject({
    status: 1,
    err: expect.stringMatching(/bytes of the 60000000 that checkpoints may take.*\(disk_full\)/),
  });
  expect(onDisk().sort()).toEqual([deployed, second].sort());
  expect(await sllm("unpin", second)).toMatchObject({ status: 0 });
  // A conversion of a checkpoint that no gateway has heard of yet would be refused: the report takes a heartbeat.
  await eventually(
    "the second may go",
    async () => (await sllm("convert", await makeSource(3))).status === 0,
    20_000,
  );
  expect(onDisk()).not.toContain(second);
  expect(onDisk()).toContain(deployed);
  await eventually(
    "placements follow the disk",
    async () => (await placed()).join() === onDisk().sort().join(),
  );
  expect(
    (await cluster.post("/v1/completions", { model: "kept", prompt: "To be", max_tokens: 2 })).status,
  ).toBe(200);
}, 180_000);

test("a model is pinned by its name, and an unknown one is said so", async () => {
  expect(await sllm("pin", "kept", "--url", cluster.url)).toMatchObject({
    status: 0,
    out: expect.stringContaining("is pinned"),
  });
  expect(await sllm("pin", "nobody", "--url", cluster.url)).toMatchObject({ status: 1 });
  expect(await sllm("pin", "0".repeat(64))).toMatchObject({
    status: 1,
    err: expect.stringContaining("not_found"),
  });
}, 60_000);
