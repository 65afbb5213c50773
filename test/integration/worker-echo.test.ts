/** The worker as a process with real engine processes and the real store; the echo engine stands for a model. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readdirSync, readlinkSync } from "node:fs";
import type { GenerateRequest, GenerationEvent } from "../../schema/cluster/generate.ts";
import { echoOf } from "../support/engine-client.ts";
import { eventually } from "../support/eventually.ts";
import { openNativeLibrary } from "../support/native.ts";
import { isAlive } from "../support/processes.ts";
import { type TinyCheckpoint, type TinyOptions, writeTinyCheckpoint } from "../support/tiny-checkpoint.ts";
import { clusterToken, generatedText, WorkerHost } from "../support/worker-host.ts";

const never = new AbortController().signal;
const long = { max_tokens: 200 };

let xxh3: NonNullable<TinyOptions["xxh3"]>;
let host: WorkerHost;
let checkpoint: TinyCheckpoint;

beforeAll(async () => {
  const library = await openNativeLibrary();
  xxh3 = (chunk) => library.digestXxh3(chunk);
  host = await WorkerHost.start({ echo_token_us: 10_000 });
  checkpoint = writeTinyCheckpoint(host.store, { xxh3 });
}, 60_000);
afterAll(() => host?.close(), 60_000);

test.each(["bun", "deno"] as const)(
  "under %s it loads, generates, unloads and ends with status 0",
  async (runtime) => {
    const own = await WorkerHost.start({ runtime, echo_token_us: 0 });
    try {
      const { digest } = writeTinyCheckpoint(own.store, { xxh3 });
      const { instance_id, last } = await own.load(digest);
      expect(last).toMatchObject({ type: "ready", timings: { disk_read_bytes: 8192 } });
      const events = await own.generate(instance_id);
      expect(events[0]).toEqual({ type: "started", prompt_tokens: 13 });
      expect(events.at(-1)).toMatchObject({ type: "done", finish_reason: "length", completion_tokens: 20 });
      expect(generatedText(events)).toBe(echoOf("to be or not ", 20));
      const pid = await own.enginePid(instance_id);
      await own.client.unload(own.address, instance_id, { if_idle: true });
      expect(isAlive(pid)).toBe(false);
      expect((await own.status()).instances).toEqual([]);
      expect(await own.process.stop()).toBe(0);
    } finally {
      await own.close();
    }
  },
  60_000,
);

test("nothing but the liveness probe answers without the cluster token", async () => {
  const { url } = host.process;
  expect((await fetch(`${url}/livez`)).status).toBe(200);
  expect((await fetch(`${url}/v1/status`)).status).toBe(401);
  const wrong = { authorization: `Bearer ${clusterToken}x` };
  expect((await fetch(`${url}/v1/instances`, { method: "POST", headers: wrong })).status).toBe(401);
});

test("fifty loads of one checkpoint at once read it once", async () => {
  const own = await WorkerHost.start({ echo_token_us: 0 });
  try {
    const pages = 4096;
    const { digest } = writeTinyCheckpoint(own.store, { xxh3, pages });
    const requests = Array.from({ length: 5 }, () => own.loadRequest(digest));
    const loads = Array.from({ length: 50 }, (_, i) => own.load(digest, requests[i % requests.length]));
    const ends = await Promise.all(loads);
    expect(new Set(ends.map((end) => end.last.type))).toEqual(new Set(["ready"]));
    expect((await own.status()).instances).toHaveLength(5);
    // Each load of the native store has a host copy of its own.
    expect(hostCopies(own.process.pid)).toBe(1);
  } finally {
    await own.close();
  }
}, 60_000);

/** Host copies that a process has open. */
function hostCopies(pid: number): number {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).filter((fd) => readLink(`${folder}/${fd}`).includes("sllm-host-copy")).length;
}

/** Where a link leads; empty when it is gone by now. */
function readLink(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

test("an engine killed in mid-generation ends its generation with an error; the worker stays up", async () => {
  const instance_id = await host.loadReady(checkpoint.digest);
  const pid = await host.enginePid(instance_id);
  const events: GenerationEvent[] = [];
  const request = host.generateRequest(instance_id, long);
  for await (const event of host.client.generate(host.address, request, never)) {
    if (events.push(event) === 3) process.kill(pid, "SIGKILL");
  }
  expect(events.at(-1)).toMatchObject({ type: "error", error: { code: "engine_killed" } });
  expect(await host.instance(instance_id)).toMatchObject({
    state: "failed",
    error: { code: "engine_killed", message: expect.stringContaining("SIGKILL") },
    active: 0,
    queued: 0,
    pid: null,
  });
  expect(isAlive(host.process.pid)).toBe(true);
  await host.client.unload(host.address, instance_id, { if_idle: true });
  expect(await host.instance(instance_id)).toBeUndefined();
});

test("an explicit cancel frees the slot within a second", async () => {
  const instance_id = await host.loadReady(checkpoint.digest, { slots: 1 });
  const first = host.generateRequest(instance_id, long);
  const running = readToEnd(first);
  await eventually("it runs", async () => (await host.instance(instance_id))?.active === 1);
  const waiting = host.generate(instance_id, { max_tokens: 2 });
  await eventually("the second one waits", async () => (await host.instance(instance_id))?.queued === 1);
  const start = performance.now();
  expect((await host.client.cancel(host.address, first.generation_id)).cancelled).toBe(true);
  expect((await waiting).at(-1)).toMatchObject({ type: "done" });
  expect(performance.now() - start).toBeLessThan(1_000);
  expect((await running).at(-1)).toMatchObject({ type: "error", error: { code: "cancelled" } });
  expect((await host.client.cancel(host.address, first.generation_id)).cancelled).toBe(false);
  await host.client.unload(host.address, instance_id, { if_idle: true });
});

test("a generation whose reader has left goes on for the grace time and is then cancelled", async () => {
  const instance_id = await host.loadReady(checkpoint.digest, { context_tokens: 4096 });
  const reader = new AbortController();
  const request = host.generateRequest(instance_id, { max_tokens: 4_000 });
  let seen = 0;
  for await (const _ of host.client.generate(host.address, request, reader.signal)) {
    if (++seen === 3) reader.abort();
  }
  const left = performance.now();
  expect(await host.instance(instance_id)).toMatchObject({ active: 1 });
  await Bun.sleep(2_000);
  expect(await host.instance(instance_id)).toMatchObject({ active: 1 });
  await eventually("it is cancelled", async () => (await host.instance(instance_id))?.active === 0, 8_000);
  expect(performance.now() - left).toBeGreaterThan(4_000);
  await host.client.unload(host.address, instance_id, { if_idle: true });
}, 30_000);

test("a reader that leaves while its generation still waits for a slot starts the grace time too", async () => {
  const instance_id = await host.loadReady(checkpoint.digest, { slots: 1, context_tokens: 4096 });
  const first = host.generateRequest(instance_id, { max_tokens: 4_000 });
  const running = readToEnd(first);
  await eventually("the first runs", async () => (await host.instance(instance_id))?.active === 1);
  const reader = new AbortController();
  const second = host.generateRequest(instance_id, long);
  const waiting = readToEnd(second, reader.signal);
  await eventually("the second waits", async () => (await host.instance(instance_id))?.queued === 1);
  reader.abort();
  await waiting;
  await eventually("it is cancelled", async () => (await host.instance(instance_id))?.queued === 0, 8_000);
  expect(await host.instance(instance_id)).toMatchObject({ active: 1 });
  await host.client.cancel(host.address, first.generation_id);
  await running;
  await host.client.unload(host.address, instance_id, { if_idle: true });
}, 30_000);

async function readToEnd(request: GenerateRequest, signal = never): Promise<GenerationEvent[]> {
  const events: GenerationEvent[] = [];
  for await (const event of host.client.generate(host.address, request, signal)) events.push(event);
  return events;
}

test("if_idle refuses to end an instance that serves; without it what runs is cancelled", async () => {
  const instance_id = await host.loadReady(checkpoint.digest);
  const pid = await host.enginePid(instance_id);
  const running = host.generate(instance_id, long);
  await eventually("it runs", async () => (await host.instance(instance_id))?.active === 1);
  const refused = host.client.unload(host.address, instance_id, { if_idle: true });
  await expect(refused).rejects.toMatchObject({ code: "instance_busy" });
  await host.client.unload(host.address, instance_id, { if_idle: false });
  expect((await running).at(-1)).toMatchObject({ type: "error", error: { code: "worker_unavailable" } });
  expect(isAlive(pid)).toBe(false);
});

test("an old epoch and an instance that is not there are refused with a status", async () => {
  const instance_id = await host.loadReady(checkpoint.digest);
  const generation_id = "ab".repeat(16);
  await host.generate(instance_id, { generation_id, epoch: 5, max_tokens: 1 });
  const stale = host.generate(instance_id, { generation_id, epoch: 4 });
  await expect(stale).rejects.toMatchObject({ code: "stale_generation" });
  const nowhere = host.generate("i-ffffffffffffffff");
  await expect(nowhere).rejects.toMatchObject({ code: "not_found" });
  await host.client.unload(host.address, instance_id, { if_idle: true });
});

test("memory that is booked out refuses the next load, and is there again after an unload", async () => {
  const own = await WorkerHost.start({
    echo_token_us: 0,
    variables: { SLLM_WORKER_MEMORY_BYTES: String(200 * 1024 * 1024) },
  });
  try {
    const { digest } = writeTinyCheckpoint(own.store, { xxh3 });
    const first = await own.loadReady(digest);
    await expect(own.load(digest)).rejects.toMatchObject({ code: "insufficient_memory" });
    await own.client.unload(own.address, first, { if_idle: true });
    await own.loadReady(digest);
  } finally {
    await own.close();
  }
}, 60_000);

test("memory for weights is made ready at the start, and the log says how long that took", async () => {
  const prefault_bytes = 48 * 1024 * 1024;
  const own = await WorkerHost.start({
    echo_token_us: 0,
    variables: { SLLM_WORKER_PREFAULT_BYTES: String(prefault_bytes) },
  });
  try {
    await eventually("the arena is ready", async () => own.process.log().includes("arena_prefaulted"));
    const line = own.process
      .log()
      .split("\n")
      .find((text) => text.includes("arena_prefaulted"));
    expect(JSON.parse(line ?? "")).toMatchObject({ prefault_bytes, faulted_bytes: prefault_bytes });
    const { digest } = writeTinyCheckpoint(own.store, { xxh3 });
    await own.loadReady(digest);
  } finally {
    await own.close();
  }
}, 60_000);

test("SIGTERM ends engines in mid-generation and the worker with status 0", async () => {
  const own = await WorkerHost.start({ echo_token_us: 10_000 });
  try {
    const { digest } = writeTinyCheckpoint(own.store, { xxh3 });
    const instance_id = await own.loadReady(digest);
    const pid = await own.enginePid(instance_id);
    const running = own.generate(instance_id, long);
    await eventually("it runs", async () => (await own.instance(instance_id))?.active === 1);
    const ended = running.then((events) => events.at(-1));
    expect(await own.process.stop()).toBe(0);
    expect(await ended).toMatchObject({ type: "error", error: { code: "worker_unavailable" } });
    expect(isAlive(pid)).toBe(false);
  } finally {
    await own.close();
  }
}, 60_000);

test("engines of a worker that was killed end by themselves, in mid-generation", async () => {
  const own = await WorkerHost.start({ echo_token_us: 10_000 });
  try {
    const { digest } = writeTinyCheckpoint(own.store, { xxh3 });
    const instance_id = await own.loadReady(digest);
    const pid = await own.enginePid(instance_id);
    const cut = own.generate(instance_id, long).catch((error: unknown) => error);
    await eventually("it runs", async () => (await own.instance(instance_id))?.active === 1);
    own.process.kill("SIGKILL");
    expect(await cut).toMatchObject({ code: "worker_unavailable" });
    await eventually("the engine is gone", () => !isAlive(pid), 5_000);
  } finally {
    await own.close();
  }
}, 60_000);

test("a worker whose parent is gone, and with it the reader of its log, ends by itself with its engines", async () => {
  const own = await WorkerHost.start({ echo_token_us: 0 });
  try {
    const { digest } = writeTinyCheckpoint(own.store, { xxh3 });
    const pid = await own.enginePid(await own.loadReady(digest));
    own.process.abandon();
    expect(await own.process.exited).toBe(0);
    expect(isAlive(pid)).toBe(false);
  } finally {
    await own.close();
  }
}, 60_000);

test("the worker keeps its name over restarts", async () => {
  const own = await WorkerHost.start({ echo_token_us: 0 });
  try {
    const { worker_id } = await own.status();
    await own.process.stop();
    await own.restart();
    expect((await own.status()).worker_id).toBe(worker_id);
  } finally {
    await own.close();
  }
}, 60_000);
