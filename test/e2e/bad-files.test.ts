/**
 * What is wrong with disks, files and budgets of a worker, over public HTTP: each its own error that says what to
 * change, while another model goes on answering. Every state is made for real: rights, sizes, mounts.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { spawn, spawnSync } from "node:child_process";
import { chmodSync, renameSync, statSync, truncateSync } from "node:fs";
import path from "node:path";
import { errorBody } from "../../schema/error.ts";
import { instanceMemoryBytes } from "../../schema/memory.ts";
import { readCheckpoint } from "../../worker/checkpoints/import.ts";
import { makeModel } from "../models/make-model.ts";
import { sampleModelPath, TestCluster } from "../support/cluster.ts";
import { eventually } from "../support/eventually.ts";
import { spoilHeader, valueAt } from "../support/spoiled-checkpoint.ts";

let cluster: TestCluster;

/** Root may read everything; without these two capabilities it obeys the rights of files like anybody else. */
const obedient =
  process.getuid?.() === 0
    ? ["setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search", process.execPath]
    : [process.execPath];

/** Two models: `romeo` keeps answering, whatever happens to the others. */
beforeAll(async () => {
  cluster = await TestCluster.start({ workerCommand: obedient });
  await cluster.deploy("romeo", undefined, { context_tokens: 128 });
  await answers(cluster, "romeo");
}, 120_000);
afterAll(() => cluster?.close(), 60_000);

const chat = (on: TestCluster, model: string) =>
  on.post("/v1/chat/completions", {
    model,
    messages: [{ role: "user", content: "Hello" }],
    max_tokens: 4,
  });

async function answers(on: TestCluster, model: string): Promise<void> {
  const response = await chat(on, model);
  expect(`${response.status} ${response.status === 200 ? "" : await response.text()}`).toBe("200 ");
}

async function refusal(on: TestCluster, model: string) {
  const response = await chat(on, model);
  const { error } = errorBody.parse(await response.json());
  expect(error.hint?.length).toBeGreaterThan(0);
  expect(JSON.stringify(error)).not.toContain(on.folder);
  return { status: response.status, code: error.code, message: error.message, retryable: error.retryable };
}

/** A deployed model with its own checkpoint, of which no instance runs. */
async function deployOther(id: string, seed: number): Promise<{ digest: string; directory: string }> {
  const source = path.join(cluster.folder, `${id}.gguf`);
  await makeModel({ out: source, architecture: "llama", size_bytes: 24_000_000, type: "f16", seed });
  await cluster.deploy(id, source);
  return cluster.convert(source);
}

/** Waits until the worker has seen and told what we did to its files. */
async function reported(on: TestCluster, code: string): Promise<void> {
  await eventually(`the worker reports ${code}`, async () =>
    (await on.adminWorkers()).some((w) => w.problems.some((p) => p.error.code === code)),
  );
}

test("weights that may not be read: permission_denied, by the name of the file", async () => {
  const { directory } = await deployOther("denied", 1);
  const weights = path.join(directory, "weights.bin");
  chmodSync(weights, 0);
  try {
    await reported(cluster, "permission_denied");
    expect(await refusal(cluster, "denied")).toMatchObject({
      status: 503,
      code: "permission_denied",
      message: expect.stringMatching(
        /Cannot read weights\.bin of checkpoint [0-9a-f]{64}: permission denied/,
      ),
      retryable: false,
    });
    await answers(cluster, "romeo");
  } finally {
    chmodSync(weights, 0o644);
  }
  await eventually("it answers once the rights are back", async () => (await chat(cluster, "denied")).ok);
}, 60_000);

test("weights cut short at rest: checkpoint_invalid, with both sizes", async () => {
  const { directory } = await deployOther("short", 2);
  truncateSync(path.join(directory, "weights.bin"), 4096);
  await reported(cluster, "checkpoint_invalid");
  expect(await refusal(cluster, "short")).toMatchObject({
    status: 422,
    code: "checkpoint_invalid",
    message: expect.stringMatching(/weights\.bin has 4096 bytes, the manifest says \d+/),
  });
  await answers(cluster, "romeo");
}, 60_000);

test.each([
  // Conversions refuse both by name; here they lie in the store as a newer version could have left them.
  [
    "architecture",
    (header: Buffer) => void header.write("omega", valueAt(header, "general.architecture") + 12),
    /omega/,
  ],
  [
    "tensor type",
    (header: Buffer) => void header.writeUInt32LE(199, valueAt(header, "blk.0.attn_q.weight") + 4 + 2 * 8),
    /blk\.0\.attn_q\.weight.*199|199.*blk\.0\.attn_q\.weight/s,
  ],
])(
  "an unsupported %s: the instance has failed with its name",
  async (what, change, name) => {
    const { directory, manifest } = await cluster.convert(sampleModelPath);
    const id = `unsupported-${what.split(" ")[0]}`;
    const spoiled = spoilHeader({ directory, manifest }, change);
    await cluster.deployCheckpoint(id, { manifest: spoiled.manifest, digest: spoiled.manifest.digest });
    const refused = await refusal(cluster, id);
    expect(refused).toMatchObject({ status: 422, message: expect.stringMatching(name), retryable: false });
    const ended = (await cluster.adminInstances(20)).find((one) => one.model_id === id);
    expect(ended).toMatchObject({ state: "failed", error: { code: refused.code } });
    expect(ended?.error?.message).toMatch(name);
    await answers(cluster, "romeo");
  },
  60_000,
);

test("weights that are written while they are read: file_changed, with what was wrong where", async () => {
  // Writes to the first bytes as fast as it can until it is killed.
  let writer: ReturnType<typeof spawn> | null = null;
  try {
    const { directory } = await deployOther("moving", 3);
    const script = `const { openSync, writeSync } = require("node:fs");
      const file = openSync(process.argv[1], "r+");
      for (let i = 0; ; i++) writeSync(file, Buffer.from([i, i >> 8, 255]), 0, 3, 0);`;
    writer = spawn("node", ["-e", script, path.join(directory, "weights.bin")], { stdio: "ignore" });
    const before = statSync(path.join(directory, "weights.bin")).mtimeMs;
    await eventually("it writes", () => statSync(path.join(directory, "weights.bin")).mtimeMs > before);
    await eventually(
      "a load meets the writer",
      async () => {
        const answer = await refusal(cluster, "moving");
        if (answer.code !== "file_changed") return false;
        expect(answer).toMatchObject({
          status: 503,
          message: expect.stringMatching(
            /weights\.bin of checkpoint .* changed while it was read: .*offset 0/,
          ),
          retryable: true,
        });
        return true;
      },
      30_000,
    );
    await answers(cluster, "romeo");
  } finally {
    writer?.kill("SIGKILL");
  }
}, 90_000);

test("a store that is gone: store_missing, and models in memory still answer", async () => {
  const { digest } = await deployOther("homeless", 4);
  const away = `${cluster.storeFolder}-away`;
  renameSync(cluster.storeFolder, away);
  try {
    await reported(cluster, "store_missing");
    const { manifest } = await readCheckpoint(path.join(away, digest));
    const id = "never-loaded";
    expect((await cluster.post("/admin/v1/models", { id, manifest })).status).toBe(201);
    expect(await refusal(cluster, id)).toMatchObject({
      status: 503,
      code: "store_missing",
      message: expect.stringContaining("'checkpoints'"),
    });
    await answers(cluster, "romeo");
  } finally {
    renameSync(away, cluster.storeFolder);
  }
  await eventually("it answers once the store is back", async () => (await chat(cluster, "homeless")).ok);
}, 60_000);

test("a memory budget below the model: deployment_too_large with both numbers", async () => {
  const { model, weights } = (await cluster.convert(sampleModelPath)).manifest;
  const budget = instanceMemoryBytes(model, weights.bytes, { context_tokens: 128, slots: 4 }) + 2 ** 20;
  const own = await TestCluster.start({ worker: { SLLM_WORKER_MEMORY_BYTES: String(budget) } });
  try {
    await own.deploy("romeo", undefined, { context_tokens: 128 });
    const { manifest } = await own.convert(path.join(cluster.folder, "denied.gguf"));
    const huge = { id: "huge", manifest, settings: { context_tokens: 128 } };
    const response = await own.post("/admin/v1/models", huge);
    expect(response.status).toBe(422);
    const { error } = errorBody.parse(await response.json());
    expect(error.code).toBe("deployment_too_large");
    expect(error.message).toMatch(/needs \d+ bytes .* gives models \d+/);
    await answers(own, "romeo");
  } finally {
    await own.close();
  }
}, 60_000);

test("an arena that cannot hold one chunk: arena_too_small with both numbers", async () => {
  const own = await TestCluster.start({ worker: { SLLM_WORKER_ARENA_BYTES: "1048576" } });
  try {
    await own.deploy("romeo");
    expect(await refusal(own, "romeo")).toMatchObject({
      status: 503,
      code: "arena_too_small",
      message: expect.stringMatching(/chunks of 16777216 bytes.* has 1048576/),
      retryable: false,
    });
    expect((await own.workerStatus()).state).toBe("ready");
  } finally {
    await own.close();
  }
}, 60_000);

const mayMount = spawnSync("unshare", ["-m", "true"]).status === 0;

/** Runs `sllm convert` in a mount namespace of its own, after `mounts` on the store. */
function convertUnder(mounts: string, store: string): { status: number | null; err: string } {
  const cli = path.resolve(import.meta.dir, "../../deploy/cli/main.ts");
  const convert = [process.execPath, cli, "convert", sampleModelPath, "--data-dir", path.dirname(store)];
  const args = ["-m", "sh", "-c", `${mounts} && exec "$@"`, store, ...convert];
  const { status, stderr } = spawnSync("unshare", args, { encoding: "utf8" });
  return { status, err: stderr };
}

test("a conversion into a full disk names the bytes, into a read-only one the mount; both leave no trace", () => {
  if (!mayMount) return console.warn("skipped: mount namespaces are not allowed here");
  const store = cluster.storeFolder;
  const full = convertUnder('mount -t tmpfs -o size=8m none "$0"', store);
  const readOnly = convertUnder('mount --bind "$0" "$0" && mount -o remount,ro,bind "$0"', store);
  expect(full).toMatchObject({
    status: 1,
    err: expect.stringMatching(/needs \d+ bytes on the store's disk, \d+ are free\. \(disk_full\)/),
  });
  expect(readOnly).toMatchObject({ status: 1, err: expect.stringContaining("(store_read_only)") });
});

test("a worker whose data folder is read-only serves what it has", async () => {
  if (!mayMount) return console.warn("skipped: mount namespaces are not allowed here");
  const own = await TestCluster.start();
  try {
    await own.deploy("romeo", undefined, { context_tokens: 128 });
    await own.workers[0]?.stop();
    const readOnly = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"';
    await own.startWorker(0, ["unshare", "-m", "sh", "-c", readOnly, own.folder, process.execPath]);
    await eventually("it answers", async () => (await chat(own, "romeo")).ok);
    expect(own.workers[0]?.log()).toContain("load_log_refused");
  } finally {
    await own.close();
  }
}, 60_000);
