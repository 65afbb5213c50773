/** `sllm simulate` and `sllm plan` on what a live fleet reports and has learned. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parse } from "yaml";
import { adminEstimateList } from "../../schema/api/admin.ts";
import { simulatedCluster } from "../../schema/simulation.ts";
import { TestCluster } from "../support/cluster.ts";
import { programs, runProgram } from "../support/command-line.ts";
import { eventually } from "../support/eventually.ts";

const folder = mkdtempSync(path.join(tmpdir(), "sllm-simulate-"));
const token_ms = 20;
const disk_bytes_per_s = 200_000_000;
const traffic = ["--rps", "1", "--cv", "1", "--duration", "2m", "--seed", "3"];
let cluster: TestCluster;

const sllm = (...args: string[]) => runProgram(programs.sllm, args, { folder });
const fromFleet = (command: string, ...args: string[]) =>
  sllm(command, "--from-fleet", "--url", cluster.url, ...traffic, ...args);

beforeAll(async () => {
  const worker = {
    SLLM_ENGINE_KIND: "echo",
    SLLM_ECHO_TOKEN_US: String(token_ms * 1_000),
    SLLM_WORKER_DISK_READ_BYTES_PER_S: String(disk_bytes_per_s),
  };
  cluster = await TestCluster.start({ workers: 2, worker });
}, 60_000);
afterAll(async () => {
  await cluster?.close();
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

describe("a live fleet", () => {
  test("without models is refused before anything is simulated", async () => {
    const { status, err } = await fromFleet("simulate");
    expect(status).toBe(1);
    expect(err).toContain("2 workers that take work and 0 models");
  }, 30_000);

  test("is simulated with its own workers, models and what it has learned", async () => {
    await cluster.deploy("tiny", undefined, { keep_alive_ms: 5_000, slots: 2 });
    await eventually("both workers have the checkpoint", async () =>
      (await cluster.adminWorkers()).every(({ placements }) => placements.length > 0),
    );
    for (let i = 0; i < 3; i++) {
      const body = { model: "tiny", prompt: "x".repeat(40), max_tokens: 30, ignore_eos: true };
      expect((await cluster.post("/v1/completions", body)).status).toBe(200);
    }
    // What one gateway saw all know some seconds later.
    await eventually("the pace of answers is known", async () => {
      const { data } = adminEstimateList.parse(
        await (await fetch(`${cluster.url}/admin/v1/estimates`)).json(),
      );
      return data.some(({ quantity, model_id }) => quantity === "decode" && model_id === "tiny");
    });
    const file = path.join(folder, "fleet.yaml");
    const live = await fromFleet("simulate", "--json", "--save", file);
    expect(live).toMatchObject({ status: 0 });
    const described = simulatedCluster.parse(parse(readFileSync(file, "utf8")));
    const workers = await cluster.adminWorkers();
    expect(described.hosts.map(({ name }) => name).sort()).toEqual(workers.map((w) => w.worker_id).sort());
    for (const host of described.hosts) expect(host.disk_bytes_per_s).toBeLessThanOrEqual(disk_bytes_per_s);
    const [model] = described.models;
    expect(model).toMatchObject({ name: "tiny", slots: 2, keep_alive_ms: 5_000, disk_copies: null });
    // The answers' own pace, as the gateway saw it; what had to be loaded is in the start and not in it.
    expect(model?.token_ms).toBeGreaterThan(token_ms * 0.8);
    expect(model?.token_ms).toBeLessThan(token_ms * 2);
    const { cases, requests } = JSON.parse(live.out);
    expect(cases[0]).toMatchObject({ name: "startup-optimal", requests, served: requests });
    // What was saved is the same cluster: it gives the same bytes.
    const again = await sllm("simulate", file, ...traffic, "--json");
    expect(again.out).toBe(live.out);
  }, 60_000);

  test("has a plan: one of its two workers is enough for light traffic", async () => {
    const { status, out } = await fromFleet("plan", "--slo", "20s", "--json");
    expect(status).toBe(0);
    const { chosen } = JSON.parse(out);
    expect(chosen).toMatchObject({ meets_goal: true, policy: "startup-optimal" });
    expect(chosen.counts.toSorted()).toEqual([0, 1]);
  }, 60_000);
});
