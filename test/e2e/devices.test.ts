/** Models on discrete devices through the gateway: Vulkan on llvmpipe where there is no graphics card. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import path from "node:path";
import { z } from "zod";
import { adminLoad } from "../../schema/api/admin.ts";
import { makeModel } from "../models/make-model.ts";
import { TestCluster } from "../support/cluster.ts";
import { programs, runProgram } from "../support/command-line.ts";
import { vulkanMissing, vulkanVariables } from "../support/vulkan.ts";

const arena_bytes = 48 * 2 ** 20;

describe.skipIf(vulkanMissing !== null)("a cluster whose worker has devices and little host memory", () => {
  let cluster: TestCluster;
  beforeAll(async () => {
    const worker = { ...vulkanVariables, SLLM_WORKER_ARENA_BYTES: String(arena_bytes) };
    cluster = await TestCluster.start({ worker });
    const gguf = path.join(cluster.folder, "large.gguf");
    await makeModel({ architecture: "llama", size_bytes: 100e6, type: "f16", out: gguf, seed: 3 });
    await cluster.deploy("large", gguf, { context_tokens: 128 });
  }, 120_000);
  afterAll(() => cluster?.close(), 60_000);

  const answer = async () => {
    const body = { model: "large", prompt: "ROMEO:\nWhat light", max_tokens: 4, temperature: 0 };
    const response = await cluster.post("/v1/completions", body);
    const { choices, usage } = await response.json();
    return { status: response.status, text: choices?.[0]?.text, usage };
  };

  test("a model larger than the arena streams through it to a device, and answers", async () => {
    const first = await answer();
    expect(first).toMatchObject({ status: 200, usage: { completion_tokens: 4 } });
    const { weights } = (await cluster.convert(path.join(cluster.folder, "large.gguf"))).manifest;
    expect(weights.bytes).toBeGreaterThan(arena_bytes);
    const args = ["explain", "load", "large", "--json", "--url", cluster.url];
    const { out } = await runProgram(programs.sllm, args, { folder: cluster.folder });
    const [load] = z.array(adminLoad).parse(JSON.parse(out));
    const { direct = 0, cached = 0, buffered = 0, uploaded = 0 } = load?.bytes ?? {};
    expect(direct + cached + buffered).toBe(weights.bytes);
    expect(uploaded).toBeGreaterThan(weights.bytes / 2);
    expect(load?.stages.map(({ stage }) => stage)).toContain("reserve");
    const [worker] = await cluster.adminWorkers();
    expect(worker?.placements.map(({ tier }) => tier)).toEqual(["disk"]);
    expect(await answer()).toMatchObject({ status: 200, text: first.text });
  }, 120_000);
});
