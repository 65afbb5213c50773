/**
 * What goes wrong inside one engine process ends that instance alone: the worker says why at once, every other instance
 * goes on in mid-answer. The echo engine stands for a model.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { eventually } from "../support/eventually.ts";
import { openNativeLibrary } from "../support/native.ts";
import { isAlive } from "../support/processes.ts";
import { writeTinyCheckpoint } from "../support/tiny-checkpoint.ts";
import { WorkerHost } from "../support/worker-host.ts";

const stall_ms = 5_000;
let host: WorkerHost;
let digest: string;
beforeAll(async () => {
  const library = await openNativeLibrary();
  host = await WorkerHost.start({
    echo_token_us: 50_000,
    variables: { SLLM_WORKER_ENGINE_STALL_MS: String(stall_ms) },
  });
  ({ digest } = writeTinyCheckpoint(host.store, { xxh3: (chunk) => library.digestXxh3(chunk) }));
}, 60_000);
afterAll(() => host?.close(), 60_000);

/** Two instances in mid-answer: a victim and a bystander, whose answer must come to its end. */
async function twoAnswers() {
  const [victim, bystander] = [await host.loadReady(digest), await host.loadReady(digest)];
  const pid = await host.enginePid(victim);
  const answers = {
    ended: host.generate(victim, { max_tokens: 240 }),
    whole: host.generate(bystander, { max_tokens: 160 }),
  };
  await eventually("both answer", async () => {
    const active = (await host.status()).instances.map((instance) => instance.active);
    return active.filter((count) => count === 1).length === 2;
  });
  return { victim, bystander, pid, answers };
}

describe.each([
  ["SIGSEGV", "engine_failed"],
  ["SIGABRT", "engine_failed"],
  ["SIGKILL", "engine_killed"],
] as const)("an engine that ends by %s", (signal, code) => {
  test("is reported within a second, with the signal, and nobody else notices", async () => {
    const { victim, bystander, pid, answers } = await twoAnswers();
    const at = performance.now();
    process.kill(pid, signal);
    await eventually("it is reported", async () => (await host.instance(victim))?.state === "failed", 1_000);
    expect(performance.now() - at).toBeLessThan(1_000);
    expect((await host.instance(victim))?.error).toMatchObject({
      code,
      message: expect.stringContaining(`signal ${signal}`),
    });
    expect((await answers.ended).at(-1)).toMatchObject({ type: "error", error: { code } });
    expect((await answers.whole).at(-1)).toMatchObject({ type: "done", completion_tokens: 160 });
    await host.client.unload(host.address, bystander, { if_idle: true });
  }, 30_000);
});

test("an engine that stops answering is ended after the time that was set, and nobody else notices", async () => {
  const { victim, bystander, pid, answers } = await twoAnswers();
  const at = performance.now();
  process.kill(pid, "SIGSTOP");
  expect((await answers.whole).at(-1)).toMatchObject({ type: "done", completion_tokens: 160 });
  await eventually("it is ended", async () => (await host.instance(victim))?.state === "failed", 20_000);
  expect(performance.now() - at).toBeGreaterThan(stall_ms / 2);
  expect((await host.instance(victim))?.error).toEqual({
    code: "engine_failed",
    message: "The engine process has not answered for 5 s; it was ended.",
  });
  await eventually("its process is gone", () => !isAlive(pid));
  expect((await answers.ended).at(-1)).toMatchObject({ type: "error", error: { code: "engine_failed" } });
  await host.client.unload(host.address, bystander, { if_idle: true });
}, 60_000);

test("engines are what the system takes first when the host's memory runs out, never the worker", async () => {
  const instance_id = await host.loadReady(digest);
  const scoreOf = (pid: number) => Number(readFileSync(`/proc/${pid}/oom_score_adj`, "utf8"));
  expect(scoreOf(await host.enginePid(instance_id))).toBeGreaterThan(scoreOf(host.process.pid));
  await host.client.unload(host.address, instance_id, { if_idle: true });
});
