/**
 * kill -9 while checkpoints are made, loaded and evicted, at random moments of many runs (SLLM_TEST_SEED repeats
 * them): the store is whole or without the checkpoint, never between, and the next process mends the rest by itself.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { convertGguf, verifyStore } from "../../worker/checkpoints/import.ts";
import { makeModel } from "../models/make-model.ts";
import { programs, runProgram } from "../support/command-line.ts";
import { eventually } from "../support/eventually.ts";
import { isAlive, repositoryRoot } from "../support/processes.ts";
import { testSeed } from "../support/property.ts";
import { generatedText, WorkerHost } from "../support/worker-host.ts";

let folder: string;
let source: string;
let random = testSeed;

/** From 0 to below 1, by the seed alone. */
function draw(): number {
  random = (Math.imul(random, 1_664_525) + 1_013_904_223) >>> 0;
  return random / 2 ** 32;
}

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), "sllm-crash-"));
  source = path.join(folder, "model.gguf");
  await makeModel({ out: source, architecture: "llama", size_bytes: 48_000_000, type: "f16" });
}, 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const isDigest = (name: string) => /^[0-9a-f]{64}$/.test(name);
const leftoversOf = (store: string) =>
  readdirSync(store).filter((name) => /^\.(incoming|reserved|using)-/.test(name));

/** Kills the command after so long; resolves when it is gone. */
async function killedAfter(args: readonly string[], delay_ms: number): Promise<void> {
  const [program, ...before] = programs.sllm;
  const child = spawn(program, [...before, ...args], { cwd: folder, stdio: "ignore" });
  const gone = new Promise((resolve) => child.once("exit", resolve));
  await Bun.sleep(delay_ms);
  child.kill("SIGKILL");
  await gone;
}

async function expectWhole(store: string): Promise<void> {
  const { checkpoints } = await verifyStore({ store_dir: store, strong: true });
  expect(checkpoints.flatMap((checkpoint) => checkpoint.damages)).toEqual([]);
}

test(`a conversion killed at any moment leaves no half checkpoint, and the next one leaves nothing over (seed ${testSeed})`, async () => {
  const data = path.join(folder, "convert");
  const store = path.join(data, "checkpoints");
  mkdirSync(store, { recursive: true });
  const started = performance.now();
  await runProgram(programs.sllm, ["convert", source, "--data-dir", data], { folder });
  const whole_ms = performance.now() - started;
  let halfway = 0;
  for (let run = 0; run < 16; run++) {
    for (const name of readdirSync(store).filter(isDigest))
      rmSync(path.join(store, name), { recursive: true });
    await killedAfter(["convert", source, "--data-dir", data], draw() * whole_ms);
    if (leftoversOf(store).length > 0) halfway++;
    await expectWhole(store);
  }
  // Some kills must have met a conversion in its middle, or the test shows nothing.
  expect(halfway).toBeGreaterThan(0);
  const last = await runProgram(programs.sllm, ["convert", source, "--data-dir", data], { folder });
  expect(last).toMatchObject({ status: 0 });
  expect(leftoversOf(store)).toEqual([]);
  await expectWhole(store);
}, 120_000);

test("a worker killed while it loads leaves marks that the next one sweeps, and that one generates", async () => {
  const host = await WorkerHost.start();
  try {
    const { digest } = await convertGguf({ source, store_dir: host.store });
    for (let run = 0; run < 4; run++) {
      const loading = host.load(digest).catch(() => null);
      await Bun.sleep(draw() * 150);
      const engines = (await host.status().catch(() => null))?.instances ?? [];
      host.process.kill("SIGKILL");
      await host.process.exited;
      await loading;
      for (const { pid } of engines) {
        if (pid !== null) await eventually("its engine ends too", () => !isAlive(pid));
      }
      await host.restart();
      await eventually("the marks are swept", () => leftoversOf(host.store).length === 0);
    }
    await expectWhole(host.store);
    const instance_id = await host.loadReady(digest);
    expect(leftoversOf(host.store)).toHaveLength(1);
    const events = await host.generate(instance_id, {
      prompt: { kind: "text", text: "To be" },
      max_tokens: 4,
    });
    expect(generatedText(events).length).toBeGreaterThan(0);
    await host.client.unload(host.address, instance_id, { if_idle: true });
    await eventually("the use ends with the instance", () => leftoversOf(host.store).length === 0);
  } finally {
    await host.close();
  }
}, 120_000);

test("an engine killed while it loads costs its instance, and no chunk of the arena", async () => {
  // The arena holds the model once: a leaked chunk would refuse a later load.
  const arena = String(3 * 16 * 1024 * 1024);
  const host = await WorkerHost.start({ variables: { SLLM_WORKER_ARENA_BYTES: arena } });
  try {
    const { digest } = await convertGguf({ source, store_dir: host.store });
    for (let run = 0; run < 5; run++) {
      const loading = host.load(digest);
      const engine = await eventually("its engine runs", async () =>
        (await host.status()).instances.find((one) => one.pid !== null),
      );
      await Bun.sleep(draw() * 40);
      if (engine.pid !== null && isAlive(engine.pid)) process.kill(engine.pid, "SIGKILL");
      const { instance_id, last } = await loading;
      expect(["failed", "ready"]).toContain(last.type);
      await host.client.unload(host.address, instance_id, { if_idle: false });
    }
    await host.loadReady(digest);
  } finally {
    await host.close();
  }
}, 120_000);

const evictingScript = `
  const { evict } = await import(${JSON.stringify(path.join(repositoryRoot, "worker/checkpoints/import/eviction.ts"))});
  process.stdout.write("ready");
  await evict(process.argv[1], process.argv[2]);`;

test("an eviction killed at any moment leaves the checkpoint whole or gone, and its bytes are swept", async () => {
  const store = path.join(folder, "evict");
  for (let run = 0; run < 12; run++) {
    const { digest, directory } = await convertGguf({ source, store_dir: store });
    const child = spawn(process.execPath, ["-e", evictingScript, store, digest], {
      cwd: repositoryRoot,
      stdio: ["ignore", "pipe", "inherit"],
    });
    const gone = new Promise((resolve) => child.once("exit", resolve));
    await new Promise((resolve) => child.stdout?.once("data", resolve));
    await Bun.sleep(draw() * 8);
    child.kill("SIGKILL");
    await gone;
    if (existsSync(directory)) await expectWhole(store);
    else expect(readdirSync(store).filter(isDigest)).toEqual([]);
  }
  await convertGguf({ source, store_dir: store });
  expect(leftoversOf(store)).toEqual([]);
}, 120_000);
