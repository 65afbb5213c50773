/** After a cold start `sllm explain load` tells where its time went; after one from memory, that nothing was read. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import path from "node:path";
import { z } from "zod";
import { adminLoad } from "../../schema/api/admin.ts";
import { loadTrace } from "../../schema/cluster/loads.ts";
import { sampleModelPath, TestCluster } from "../support/cluster.ts";
import { programs, runProgram } from "../support/command-line.ts";
import { eventually } from "../support/eventually.ts";

let cluster: TestCluster;
beforeAll(async () => {
  // Without parking an idle instance ends at once.
  cluster = await TestCluster.start({ gateway: { SLLM_GATEWAY_PARK_MS: "0" } });
  await cluster.deploy("romeo", undefined, { context_tokens: 128, keep_alive_ms: 0 });
}, 120_000);
afterAll(() => cluster?.close(), 60_000);

const chat = () =>
  cluster.post("/v1/chat/completions", {
    model: "romeo",
    messages: [{ role: "user", content: "Hello" }],
    max_tokens: 4,
  });

const explain = (...args: string[]) =>
  runProgram(programs.sllm, ["explain", "load", ...args, "--url", cluster.url], { folder: cluster.folder });

test("a cold start is explained: stages, bytes and a critical path that is its whole time", async () => {
  expect((await chat()).status).toBe(200);
  const { out, status } = await explain("romeo", "--json");
  expect(status).toBe(0);
  const [load] = z.array(adminLoad).parse(JSON.parse(out));
  const { weights } = (await cluster.convert(sampleModelPath)).manifest;
  expect(load).toMatchObject({ model_id: "romeo", outcome: "ready", error: null, source: "disk" });
  const { direct = 0, cached = 0, buffered = 0 } = load?.bytes ?? {};
  expect(direct + cached + buffered).toBe(weights.bytes);
  expect(load?.read).toMatchObject({ rereads: 0 });
  const stages = load?.stages.map((s) => s.stage) ?? [];
  for (const stage of [
    "lookup",
    "process",
    "link_wait",
    "reserve",
    "read",
    "header_check",
    "model_build",
  ] as const) {
    expect(stages).toContain(stage);
  }
  for (const { start_ms, end_ms } of load?.stages ?? []) {
    expect(end_ms).toBeGreaterThanOrEqual(start_ms);
    expect(end_ms).toBeLessThanOrEqual((load?.total_ms ?? 0) + 1);
  }
  const path_ms = load?.critical_path.reduce((sum, part) => sum + part.ms, 0) ?? 0;
  expect(Math.abs(path_ms - (load?.total_ms ?? 0))).toBeLessThan(1);
  const shown = await explain("romeo");
  expect(shown.out).toMatch(/^romeo: ready after \d+\.\d ms, from disk .* page cache/);
  expect(shown.out).toMatch(/^model_build .*=+/m);
  expect(shown.out).toMatch(/^critical path: .*model_build/m);
}, 60_000);

test("a start from host memory reads nothing, is the last one, and both are kept in the worker's file", async () => {
  await eventually("the idle instance is gone", async () => (await cluster.adminInstances()).length === 0);
  expect((await chat()).status).toBe(200);
  expect((await explain("--last")).out).toContain("were in host memory");
  const kept = readFileSync(path.join(cluster.folder, "worker-0", "loads.jsonl"), "utf8");
  const sources = kept
    .trimEnd()
    .split("\n")
    .map((line) => loadTrace.parse(JSON.parse(line)).source);
  expect(sources).toEqual(["disk", "host"]);
}, 60_000);

test("a load that nobody remembers is said so, and what cannot be explained is a wrong call", async () => {
  const unknown = await explain("hamlet");
  expect(unknown).toMatchObject({
    status: 1,
    err: expect.stringContaining("no worker remembers a load of hamlet"),
  });
  const wrong = await runProgram(programs.sllm, ["explain", "everything"], { folder: cluster.folder });
  expect(wrong).toMatchObject({
    status: 2,
    err: expect.stringContaining("'everything' cannot be explained"),
  });
}, 60_000);
