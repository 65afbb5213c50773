import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { SllmError } from "../../schema/error.ts";
import { type SimulatedCluster, simulatedCluster, simulatedPolicies } from "../../schema/simulation.ts";
import { findWrongBooks, InstanceHistory } from "../../test/support/cluster-invariants.ts";
import { settle } from "../../test/support/manual-clock.ts";
import { checkAsyncProperty, testSeed } from "../../test/support/property.ts";
import { type Simulation, simulate } from "./simulate.ts";
import { summarize } from "./summary.ts";
import { type RequestTrace, toTrace } from "./trace.ts";
import { gammaTrace } from "./workloads/gamma.ts";
import { gsm8k } from "./workloads/lengths.ts";

const GB = 1e9;

function makeCluster(fields: { system?: object; hosts?: object; models?: object } = {}): SimulatedCluster {
  return simulatedCluster.parse({
    hosts: [
      {
        ...{ name: "host", count: 2, devices: 2, device_memory_bytes: 24 * GB, host_memory_bytes: 40 * GB },
        ...{ disk_bytes: 500 * GB, disk_bytes_per_s: 5 * GB, ...fields.hosts },
      },
    ],
    models: [
      {
        ...{ name: "m", copies: 6, weights_bytes: 13 * GB, kv_bytes_per_token: 500_000, disk_copies: 1 },
        ...{ prefill_ms_per_token: 0.5, prefill_base_ms: 20, token_ms: 30, build_ms: 100, init_ms: 50 },
        ...{ keep_alive_ms: 20_000, ...fields.models },
      },
    ],
    system: { hold_ms: 60_000, ...fields.system },
  });
}

const bursts = (requests_per_s: number, seconds: number, models: number, seed: number): RequestTrace =>
  gammaTrace(
    { requests_per_s, cv: 4, zipf: 0.9, duration_ms: seconds * 1_000, stream: "aggregate", lengths: gsm8k },
    models,
    seed,
  );

const run = (cluster: SimulatedCluster, trace: RequestTrace, seed = 1): Promise<Simulation> =>
  simulate(cluster, trace, { seed, settle });

describe("a simulated cluster", () => {
  test("a lone request waits for its bytes, its model and its init, and the next one finds it warm", async () => {
    const cluster = makeCluster();
    const row = { model: 0, input_tokens: 100, output_tokens: 10 };
    const trace = toTrace([
      { arrival_ms: 1_000, ...row },
      { arrival_ms: 9_000, ...row },
    ]);
    const { outcomes, loads } = await run(cluster, trace);
    // 13 GB at 5 GB/s, then init; the bus is faster than the disk and works beside it.
    expect(outcomes.startup_ms[0]).toBeCloseTo(2_650, 3);
    expect(outcomes.ttft_ms[0]).toBeCloseTo(2_650 + 20 + 50, 3);
    expect(outcomes.startup_ms[1]).toBe(0);
    expect(loads).toMatchObject({ disk: 1, host: 0 });
  });

  test("weights that lie nowhere near come over the network once, then from memory", async () => {
    const cluster = makeCluster({ models: { disk_copies: 0, keep_alive_ms: 1_000 }, hosts: { count: 1 } });
    const row = { model: 0, input_tokens: 10, output_tokens: 1 };
    const trace = toTrace([
      { arrival_ms: 0, ...row },
      { arrival_ms: 60_000, ...row },
    ]);
    const { outcomes, loads } = await run(cluster, trace);
    expect(outcomes.startup_ms[0]).toBeCloseTo((13 / 1.25) * 1_000 + 50, 3);
    expect(outcomes.startup_ms[1]).toBeCloseTo((13 / 25) * 1_000 + 50, 3);
    expect(loads).toMatchObject({ origin: 1, host: 1 });
  });

  test("on processors copies of stopped models go where others book their memory", async () => {
    const cluster = makeCluster({
      hosts: { count: 1, devices: 1, device_kind: "cpu", device_memory_bytes: 32 * GB },
      models: { copies: 3, disk_copies: null, keep_alive_ms: 1_000 },
      system: { park_ms: 0 },
    });
    const at = (arrival_ms: number, model: number) => ({
      arrival_ms,
      model,
      input_tokens: 10,
      output_tokens: 100,
    });
    // The first one's copy is kept while only one other runs, and goes when two do.
    const kept = await run(cluster, toTrace([at(0, 0), at(10_000, 1), at(20_000, 0)]));
    expect(kept.loads).toMatchObject({ disk: 2, host: 1 });
    const gone = await run(cluster, toTrace([at(0, 0), at(10_000, 1), at(10_001, 2), at(30_000, 0)]));
    expect(gone.loads).toMatchObject({ disk: 4, host: 0 });
  });

  test("the same seed gives the same result to the last bit, another one another", async () => {
    for (const policy of ["startup-optimal", "random"] as const) {
      const cluster = makeCluster({ system: { policy } });
      const once = await run(cluster, bursts(2, 120, 6, 7), 7);
      const again = await run(cluster, bursts(2, 120, 6, 7), 7);
      const other = await run(cluster, bursts(2, 120, 6, 8), 8);
      expect(JSON.stringify(summarize(again, 60_000))).toBe(JSON.stringify(summarize(once, 60_000)));
      expect(again.outcomes.startup_ms).toEqual(once.outcomes.startup_ms);
      expect(other.outcomes.startup_ms).not.toEqual(once.outcomes.startup_ms);
    }
  });

  test("running work moves away where that is sooner, and pauses for the last round alone", async () => {
    const cluster = makeCluster({ models: { keep_alive_ms: 2_000 } });
    const simulation = await run(cluster, bursts(1, 240, 6, 3));
    const { pause_ms, share_served } = summarize(simulation, 60_000);
    expect(simulation.migrations).toBeGreaterThan(0);
    expect(simulation.preemptions).toBe(0);
    // The prompt and all tokens at once would take longer than what is left after the rounds.
    expect(pause_ms.max).toBeLessThan(20 + 0.5 * 60);
    expect(share_served).toBe(1);
  });

  test("with a plain queue each request starts an instance of its own where a device is free", async () => {
    const row = { model: 0, input_tokens: 10, output_tokens: 50 };
    const trace = toTrace([0, 1, 2].map((arrival_ms) => ({ arrival_ms, ...row })));
    const system = { policy: "random" };
    const models = { disk_copies: null };
    const together = await run(makeCluster({ system, models }), trace);
    expect(Object.values(together.loads).reduce((sum, count) => sum + count, 0)).toBe(1);
    const alone = await run(makeCluster({ system: { ...system, queue: "plain" }, models }), trace);
    expect(summarize(alone, 60_000).served).toBe(3);
    expect(Object.values(alone.loads).reduce((sum, count) => sum + count, 0)).toBe(3);
  });

  test("requests that stop each other give up once they have waited as long as they may, all waits together", async () => {
    const cluster = makeCluster({
      system: { policy: "preemptive", hold_ms: 30_000 },
      hosts: { count: 1, devices: 1 },
      models: { copies: 2, disk_copies: null, prefill_base_ms: 5_000 },
    });
    const trace = toTrace(
      [0, 1].map((model) => ({ arrival_ms: 1_000 * model, model, input_tokens: 10, output_tokens: 200 })),
    );
    const simulation = await run(cluster, trace);
    const { served, late } = summarize(simulation, 30_000);
    expect(served + late).toBe(2);
    expect(simulation.preemptions).toBeGreaterThan(2);
    expect(Math.max(...simulation.outcomes.startup_ms)).toBeLessThan(31_000);
  });

  test("baselines without tiers download for every start, or read what they have on disk", async () => {
    const trace = bursts(0.5, 240, 6, 5);
    const first = await run(makeCluster({ system: { policy: "download-first" } }), trace);
    const cached = await run(makeCluster({ system: { policy: "cache-on-disk" } }), trace);
    expect(first.loads).toMatchObject({ host: 0, disk: 0 });
    expect(first.loads.origin).toBeGreaterThan(6);
    expect(cached.loads.disk).toBeGreaterThan(0);
    expect(cached.loads.origin).toBeLessThan(first.loads.origin);
  });
});

describe("whatever the cluster and the traffic", () => {
  test("memory is never over-committed, only the policy that preempts stops work, and every request ends", async () => {
    const some = fc.record({
      policy: fc.constantFrom(...simulatedPolicies),
      device_kind: fc.constantFrom("cuda", "cpu"),
      slots: fc.integer({ min: 1, max: 3 }),
      requests_per_s: fc.constantFrom(0.5, 3, 10),
      keep_alive_ms: fc.constantFrom(0, 3_000, 30_000),
      disk_copies: fc.constantFrom(0, 1, 2),
      count: fc.integer({ min: 1, max: 3 }),
      seed: fc.nat(1_000),
    });
    await checkAsyncProperty(
      some,
      async ({ policy, device_kind, count, seed, requests_per_s, ...models }) => {
        const cluster = makeCluster({ system: { policy }, hosts: { device_kind, count }, models });
        const history = new InstanceHistory();
        const live = new Map<
          string,
          Parameters<InstanceHistory["note"]>[0] & { device: string; bytes: number }
        >();
        const simulation = await simulate(cluster, bursts(requests_per_s, 60, 6, seed), {
          ...{ seed, settle },
          onInstance: (row) => {
            history.note(row);
            const device = `${row.worker_id}/${row.device_id}`;
            if (row.ended_at !== null) return void live.delete(row.instance_id);
            live.set(row.instance_id, { ...row, device, bytes: row.memory_bytes });
            const on = [...live.values()].filter((other) => other.device === device);
            const reserved_bytes = on.reduce((sum, other) => sum + other.bytes, 0);
            const booked = {
              ...row,
              memory_bytes: cluster.hosts[0]?.device_memory_bytes ?? 0,
              reserved_bytes,
            };
            const rows = on.map((other) => ({ ...row, state: other.state, memory_bytes: other.bytes }));
            const wrong = findWrongBooks([booked], rows);
            // Comparing means more work than what is compared, many thousand times.
            if (wrong.length > 0) expect(wrong).toEqual([]);
          },
        });
        expect(history.wrong).toEqual([]);
        if (policy !== "preemptive") expect(simulation.preemptions).toBe(0);
        const { requests, served, late, refused } = summarize(simulation, 60_000);
        expect(served + late + refused).toBe(requests);
      },
      12,
    );
    expect(testSeed).toBeGreaterThanOrEqual(0);
  }, 30_000);
});

describe("what can never be", () => {
  test("a model that no device takes is refused before anything runs, with both sizes", async () => {
    const cluster = makeCluster({ models: { weights_bytes: 30 * GB } });
    const refusal = await refusalOf(run(cluster, bursts(1, 60, 6, 1)));
    expect(refusal.code).toBe("model_too_large");
    expect(refusal.message).toContain("the largest device of the cluster has 24000000000");
  });

  test("a model that no disk holds is refused where nothing is fetched", async () => {
    const cluster = makeCluster({ models: { disk_copies: 0 }, system: { fetch: false } });
    expect((await refusalOf(run(cluster, bursts(1, 60, 6, 1)))).code).toBe("checkpoint_unavailable");
  });
});

async function refusalOf(running: Promise<unknown>): Promise<SllmError> {
  return await running.then(
    () => Promise.reject(new Error("it was not refused")),
    (error: SllmError) => error,
  );
}
