import { describe, expect, test } from "bun:test";
import { simulatedCluster } from "../../schema/simulation.ts";
import { settle } from "../../test/support/manual-clock.ts";
import { planFleet } from "./plan.ts";
import { gammaTrace } from "./workloads/gamma.ts";
import { gsm8k } from "./workloads/lengths.ts";

const host = { devices: 1, host_memory_bytes: 100e9, disk_bytes: 1e12, disk_bytes_per_s: 5e9 };
const cluster = simulatedCluster.parse({
  hosts: [
    { ...host, name: "small", count: 5, device_memory_bytes: 10e9, price_per_hour: 1 },
    { ...host, name: "large", count: 2, device_memory_bytes: 30e9, price_per_hour: 4 },
  ],
  models: [
    { name: "a", weights_bytes: 5e9, kv_bytes_per_token: 1e5, prefill_ms_per_token: 1, token_ms: 20 },
    { name: "b", weights_bytes: 20e9, kv_bytes_per_token: 1e5, prefill_ms_per_token: 1, token_ms: 20 },
  ],
});
const workload = { requests_per_s: 1, cv: 1, zipf: 1, duration_ms: 120_000, lengths: gsm8k };
const trace = gammaTrace({ ...workload, stream: "aggregate" }, 2, 1);
const options = { seed: 1, settle, policies: ["startup-optimal", "random"] as const };

describe("the cheapest fleet", () => {
  test("meets the goal, and no fleet that was tried and is cheaper does", async () => {
    const { chosen, tried } = await planFleet(cluster, trace, { ttft_p99_ms: 15_000 }, options);
    expect(chosen?.meets_goal).toBe(true);
    // The large model fits large hosts alone.
    expect(chosen?.counts[1]).toBeGreaterThan(0);
    expect(chosen?.price_per_hour).toBeLessThan(13);
    const cheaper = tried.filter(({ price_per_hour }) => price_per_hour < (chosen?.price_per_hour ?? 0));
    expect(cheaper.every(({ meets_goal }) => !meets_goal)).toBe(true);
  });

  test("is none where not even all hosts meet it, and that is found with one try for each policy", async () => {
    const { chosen, tried } = await planFleet(cluster, trace, { ttft_p99_ms: 1 }, options);
    expect(chosen).toBeNull();
    expect(tried).toHaveLength(2);
  });

  test("is not a fleet whose hosts cannot run a model", async () => {
    const small = { ...cluster, hosts: cluster.hosts.slice(0, 1) };
    const { chosen, tried } = await planFleet(small, trace, { ttft_p99_ms: 60_000 }, options);
    expect(chosen).toBeNull();
    expect(tried[0]?.ttft_p99_ms).toBeNull();
  });
});
