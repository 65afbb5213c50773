/** Parked instances in a real worker: what they let go, how they come back, and what happens to them meanwhile. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { convertGguf } from "../../worker/checkpoints/import.ts";
import { makeModel } from "../models/make-model.ts";
import { sampleModelPath } from "../support/cluster.ts";
import { eventually } from "../support/eventually.ts";
import { pssBytes } from "../support/processes.ts";
import { generatedText, WorkerHost } from "../support/worker-host.ts";

const mebibyte = 1024 * 1024;

let host: WorkerHost;
let digest: string;
beforeAll(async () => {
  host = await WorkerHost.start();
  ({ digest } = await convertGguf({ source: sampleModelPath, store_dir: host.store }));
}, 60_000);
afterAll(() => host?.close(), 60_000);

const park = (of: WorkerHost, instance_id: string) => of.client.park(of.address, instance_id);
const unload = (of: WorkerHost, instance_id: string) =>
  of.client.unload(of.address, instance_id, { if_idle: true });
const text = async (of: WorkerHost, instance_id: string) => generatedText(await of.generate(instance_id));

/** Resident kilobytes of the arena in a process. */
function arenaKilobytes(pid: number): number {
  let inside = false;
  let total = 0;
  for (const line of readFileSync(`/proc/${pid}/smaps`, "utf8").split("\n")) {
    if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) inside = line.includes("memfd:sllm-arena");
    else if (inside && line.startsWith("Rss:")) total += Number(/\d+/.exec(line)?.[0] ?? 0);
  }
  return total;
}

test("a parked instance comes back in the same process with the same text, and nothing is read", async () => {
  const instance_id = await host.loadReady(digest);
  const before = await text(host, instance_id);
  const pid = await host.enginePid(instance_id);
  await park(host, instance_id);
  await park(host, instance_id);
  expect(await host.instance(instance_id)).toMatchObject({ state: "parked", pid, error: null });
  const { last } = await host.load(digest, { instance_id });
  expect(last).toMatchObject({
    type: "ready",
    timings: { process_start_ms: 0, model_build_ms: 0, disk_read_bytes: 0 },
  });
  expect(last.type === "ready" && last.timings.resume_ms).toBeGreaterThan(0);
  expect(await host.enginePid(instance_id)).toBe(pid);
  expect(await text(host, instance_id)).toBe(before);
  await unload(host, instance_id);
});

test("a busy instance is not parked and goes on; a parked one takes no generation", async () => {
  const own = await WorkerHost.start({ echo_token_us: 20_000 });
  try {
    await convertGguf({ source: sampleModelPath, store_dir: own.store });
    const instance_id = await own.loadReady(digest);
    const running = own.generate(instance_id, { max_tokens: 30 });
    await eventually("it runs", async () => (await own.instance(instance_id))?.active === 1);
    await expect(park(own, instance_id)).rejects.toMatchObject({ code: "instance_busy" });
    expect((await running).at(-1)).toMatchObject({ type: "done", completion_tokens: 30 });
    await park(own, instance_id);
    await expect(own.generate(instance_id)).rejects.toMatchObject({ code: "state_conflict" });
    await unload(own, instance_id);
    await expect(park(own, instance_id)).rejects.toMatchObject({ code: "not_found" });
  } finally {
    await own.close();
  }
}, 30_000);

test("of two instances of one checkpoint one parks, and the other does not notice", async () => {
  const ids = [await host.loadReady(digest), await host.loadReady(digest)];
  const [one = "", other = ""] = ids;
  const expected = await text(host, one);
  await park(host, one);
  expect(await text(host, other)).toBe(expected);
  await unload(host, other);
  await host.load(digest, { instance_id: one });
  expect(await text(host, one)).toBe(expected);
  await unload(host, one);
});

test("an engine that is killed while it is parked is reported failed, and the next start works", async () => {
  const instance_id = await host.loadReady(digest);
  const expected = await text(host, instance_id);
  await park(host, instance_id);
  process.kill(await host.enginePid(instance_id), "SIGKILL");
  await eventually("it has failed", async () => (await host.instance(instance_id))?.state === "failed");
  expect((await host.instance(instance_id))?.error?.code).toBe("engine_killed");
  const next = await host.loadReady(digest);
  expect(await text(host, next)).toBe(expected);
  for (const id of [instance_id, next]) await unload(host, id);
});

test("without a cache a parked instance loses its copy, and a resume reads it anew", async () => {
  const own = await WorkerHost.start({ variables: { SLLM_WORKER_HOST_CACHE_BYTES: "0" } });
  try {
    const { manifest } = await convertGguf({ source: sampleModelPath, store_dir: own.store });
    const instance_id = await own.loadReady(digest);
    const expected = await text(own, instance_id);
    const pid = await own.enginePid(instance_id);
    expect(arenaKilobytes(pid) * 1024).toBeGreaterThan(manifest.weights.bytes / 2);
    await park(own, instance_id);
    await eventually("the copy is let go", () => arenaKilobytes(pid) === 0);
    expect((await own.status()).placements.map((placement) => placement.tier)).toEqual(["disk"]);
    const { last } = await own.load(digest, { instance_id });
    expect(last).toMatchObject({ type: "ready", timings: { disk_read_bytes: manifest.weights.bytes } });
    expect(await own.enginePid(instance_id)).toBe(pid);
    expect(await text(own, instance_id)).toBe(expected);
  } finally {
    await own.close();
  }
}, 30_000);

test("a larger model gives its memory to another one while it is parked, and takes it back", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "sllm-park-"));
  const size_bytes = 120_000_000;
  // Room for one of both and a parked one beside it; the arena holds one copy.
  const own = await WorkerHost.start({
    variables: { SLLM_WORKER_MEMORY_BYTES: String(500 * mebibyte), SLLM_WORKER_STANDBY_ENGINES: "0" },
  });
  try {
    const digests: string[] = [];
    for (const seed of [1, 2]) {
      const out = path.join(folder, `${seed}.gguf`);
      await makeModel({ architecture: "llama", type: "f16", size_bytes, out, seed });
      digests.push((await convertGguf({ source: out, store_dir: own.store })).digest);
    }
    const [one = "", other = ""] = digests;
    const settings = { context_tokens: 4096, slots: 1 };
    const instance_id = await own.loadReady(one, settings);
    const expected = await text(own, instance_id);
    expect((await own.load(other, settings).catch((error: unknown) => error)) as object).toMatchObject({
      code: "insufficient_memory",
    });
    await own.generate(instance_id, { prompt: { kind: "text", text: "word ".repeat(700) } });
    const pid = await own.enginePid(instance_id);
    const running = pssBytes([pid]);
    await park(own, instance_id);
    const second = await own.loadReady(other, settings);
    await eventually("its weights have left the first", () => pssBytes([pid]) < running - 64 * mebibyte);
    await expect(own.load(one, { ...settings, instance_id })).rejects.toMatchObject({
      code: "insufficient_memory",
    });
    await unload(own, second);
    const { last } = await own.load(one, { ...settings, instance_id });
    expect(last.type).toBe("ready");
    expect(await text(own, instance_id)).toBe(expected);
  } finally {
    await own.close();
    rmSync(folder, { recursive: true, force: true });
  }
}, 120_000);
