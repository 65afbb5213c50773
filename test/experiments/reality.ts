/**
 * The simulator against reality: the same requests at a live fleet on this machine and at a simulated one with numbers
 * measured from it. Workers are real processes with real stores; each reads at most at a bounded rate, and engines are
 * the echo, which keeps its time per token whatever else runs: so that they behave as hosts of their own.
 */
import { mkdirSync } from "node:fs";
import path from "node:path";
import { z } from "zod";
import { gammaTrace, gsm8k, type RequestTrace, simulate } from "../../gateway/simulator/simulator.ts";
import { type Spread, spreadOf } from "../../gateway/simulator/summary.ts";
import { instanceMemoryBytes } from "../../schema/memory.ts";
import { type SimulatedCluster, simulatedCluster } from "../../schema/simulation.ts";
import { quantile } from "../bench/statistics.ts";
import { makeModel } from "../models/make-model.ts";
import { TestCluster } from "../support/cluster.ts";
import { settle } from "../support/manual-clock.ts";
import { readSse } from "../support/sse-client.ts";

export const realityPlan = {
  ...{ workers: 3, models: 6, size_bytes: 60e6, disk_bytes_per_s: 30e6, token_ms: 20, context_tokens: 512 },
  ...{
    requests_per_s: 1,
    cv: 3,
    zipf: 0.9,
    duration_ms: 120_000,
    keep_alive_ms: 3_000,
    instances_per_worker: 2,
  },
};
const plan = realityPlan;
/** Of copies that no instance uses: more than there are. */
const cache_bytes = 2 * plan.models * plan.size_bytes;

/** Lines of the gateway's log about one start: what it decided, and that the instance is ready. */
const startLine = z.object({
  at: z.iso.datetime(),
  event: z.enum(["start", "instance_ready"]),
  instance_id: z.string(),
  worker_id: z.string(),
  tier: z.string().optional(),
});

export interface Comparison {
  readonly seed: number;
  readonly requests: number;
  /** Of each time that it was played: processes on one machine never do the same twice. */
  readonly live_ms: readonly Spread[];
  readonly simulated_ms: Spread;
}

interface Fleet {
  readonly cluster: TestCluster;
  readonly memory_bytes: number;
  readonly weights_bytes: number;
  readonly facts: Pick<
    Parameters<typeof instanceMemoryBytes>[0],
    "embedding" | "vocabulary_tokens" | "kv_bytes_per_token"
  >;
}

/** Of one request, as its client saw it. */
interface Answer {
  readonly first_ms: number;
  /** Between tokens, in the mean; null where the answer has too few to tell. */
  readonly token_ms: number | null;
}

interface LiveRun {
  readonly seed: number;
  readonly trace: RequestTrace;
  readonly answers: readonly Answer[];
  readonly fleet: Fleet;
  readonly log: string;
}

/** So many live runs of each seed, in turns, each on a fleet of its own; then the same in virtual time. */
export async function runReality(
  seeds: readonly number[],
  rounds: number,
  say: (text: string) => void,
): Promise<readonly Comparison[]> {
  const runs: LiveRun[] = [];
  for (let round = 1; round <= rounds; round++) {
    for (const seed of seeds) {
      runs.push(await playSeed(seed));
      say(`round ${round}, seed ${seed}: played`);
    }
  }
  const weights_bytes = runs[0]?.fleet.weights_bytes ?? 0;
  const measured = measuredFrom(runs, weights_bytes);
  say(JSON.stringify(measured));
  const results: Comparison[] = [];
  for (const seed of seeds) {
    const played = runs.filter((run) => run.seed === seed);
    const [first] = played;
    if (first === undefined) throw new Error("every seed was played");
    const { trace, fleet } = first;
    const { outcomes } = await simulate(simulatedFleet(fleet, measured), trace, { seed, settle });
    results.push({
      ...{ seed, requests: trace.count },
      live_ms: played.map(({ answers }) => spreadOf(Float64Array.from(answers, ({ first_ms }) => first_ms))),
      simulated_ms: spreadOf(outcomes.ttft_ms),
    });
  }
  return results;
}

async function playSeed(seed: number): Promise<LiveRun> {
  const { requests_per_s, cv, zipf, duration_ms, models } = plan;
  const workload = { requests_per_s, cv, zipf, duration_ms, stream: "aggregate" as const, lengths: gsm8k };
  const trace = gammaTrace(workload, models, seed);
  const fleet = await startFleet();
  try {
    const answers = await play(fleet.cluster, trace);
    return { seed, trace, answers, fleet, log: fleet.cluster.gateway.log() };
  } finally {
    await fleet.cluster.close();
  }
}

async function startFleet(): Promise<Fleet> {
  const cluster = await TestCluster.start({
    workers: 0,
    gateway: { SLLM_GATEWAY_PARK_MS: "0" },
    worker: {
      SLLM_ENGINE_KIND: "echo",
      SLLM_ECHO_TOKEN_US: String(plan.token_ms * 1_000),
      SLLM_WORKER_DISK_READ_BYTES_PER_S: String(plan.disk_bytes_per_s),
      SLLM_WORKER_DISK_LOADS: "1",
      SLLM_WORKER_HOST_CACHE_BYTES: String(cache_bytes),
      SLLM_WORKER_STANDBY_SKELETONS: "0",
      SLLM_WORKER_STANDBY_ENGINES: "4",
    },
  });
  mkdirSync(path.join(cluster.folder, "models"));
  const made = [];
  for (let i = 0; i < plan.models; i++) {
    const out = path.join(cluster.folder, "models", `m${i}.gguf`);
    await makeModel({ architecture: "llama", size_bytes: plan.size_bytes, type: "f16", out, seed: i + 1 });
    made.push(await cluster.convert(out));
  }
  const [first] = made;
  if (first === undefined) throw new Error("there are models");
  const facts = first.manifest.model;
  const weights_bytes = first.manifest.weights.bytes;
  const settings = { context_tokens: plan.context_tokens, slots: 1 };
  const memory_bytes = Math.ceil(
    plan.instances_per_worker * 1.02 * instanceMemoryBytes(facts, weights_bytes, settings),
  );
  await cluster.addWorkers(plan.workers, { SLLM_WORKER_MEMORY_BYTES: String(memory_bytes) });
  for (const [i, checkpoint] of made.entries()) {
    await cluster.deployCheckpoint(`m${i}`, checkpoint, { ...settings, keep_alive_ms: plan.keep_alive_ms });
  }
  return { cluster, memory_bytes, weights_bytes, facts };
}

/** In the order of the requests. */
async function play(cluster: TestCluster, trace: RequestTrace): Promise<Answer[]> {
  const began_ms = performance.now();
  const answers: Promise<Answer>[] = [];
  for (let i = 0; i < trace.count; i++) {
    await Bun.sleep(Math.max(0, began_ms + (trace.arrival_ms[i] ?? 0) - performance.now()));
    answers.push(ask(cluster, trace, i));
  }
  return Promise.all(answers);
}

async function ask(cluster: TestCluster, trace: RequestTrace, index: number): Promise<Answer> {
  const began_ms = performance.now();
  const response = await cluster.post("/v1/completions", {
    ...{ model: `m${trace.model[index]}`, prompt: "x".repeat(Math.min(200, trace.input_tokens[index] ?? 1)) },
    // The echo ends where its prompt does, unless it is told to go on: answers are as long as the trace says.
    ...{ max_tokens: Math.max(1, trace.output_tokens[index] ?? 1), ignore_eos: true, stream: true },
  });
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
  let first_ms: number | null = null;
  let [last_ms, tokens] = [0, 0];
  for await (const event of readSse(response)) {
    if (event.kind === "comment" || event.data === "[DONE]") continue;
    const text: string = JSON.parse(event.data).choices?.[0]?.text ?? "";
    if (text === "") continue;
    last_ms = performance.now() - began_ms;
    first_ms ??= last_ms;
    tokens += text.length;
  }
  if (first_ms === null) throw new Error("an answer without a token");
  const token_ms = tokens < leastTimed_tokens ? null : (last_ms - first_ms) / (tokens - 1);
  return { first_ms, token_ms };
}

/** Answers of fewer say little of the time between tokens. */
const leastTimed_tokens = 20;

interface Measured {
  /** The engine is asked for a round number and takes a little longer, as all that waits for a time does. */
  readonly token_ms: number;
  /** What a start takes whose bytes are in memory. */
  readonly init_ms: number;
  /** At which the others' bytes come, all of the start but this. */
  readonly disk_bytes_per_s: number;
}

/**
 * Medians: of the answers' times, and, from the gateways' own logs, of the starts that had no other beside them on their
 * worker.
 */
function measuredFrom(runs: readonly LiveRun[], weights_bytes: number): Measured {
  const tokens_ms = runs.flatMap(({ answers }) => answers.map(({ token_ms }) => token_ms));
  const token_ms = quantile(
    tokens_ms.filter((ms) => ms !== null),
    0.5,
  );
  const starts = runs.flatMap(({ log }) => startsIn(log)).filter(({ isAlone }) => isAlone);
  const times = (tier: string) => starts.filter((one) => one.tier === tier).map(({ took_ms }) => took_ms);
  const [fromDisk, fromMemory] = [times("disk"), times("host")];
  if (fromDisk.length === 0 || fromMemory.length === 0) throw new Error("too few starts to measure");
  const init_ms = quantile(fromMemory, 0.5);
  return {
    token_ms,
    init_ms,
    disk_bytes_per_s: (weights_bytes / (quantile(fromDisk, 0.5) - init_ms)) * 1_000,
  };
}

/** Starts of one run, from the decision until the gateway knows the instance as ready. */
function startsIn(log: string): { tier: string; took_ms: number; isAlone: boolean }[] {
  const lines = log.split("\n").filter((line) => /"event":"(start|instance_ready)"/.test(line));
  const begun = new Map<string, { tier: string; at_ms: number; worker_id: string; isAlone: boolean }>();
  const starts: { tier: string; took_ms: number; isAlone: boolean }[] = [];
  for (const line of lines) {
    const { at, event, instance_id, worker_id, tier = "" } = startLine.parse(JSON.parse(line));
    const at_ms = Date.parse(at);
    if (event === "start") {
      const others = [...begun.values()].filter((other) => other.worker_id === worker_id);
      for (const other of others) other.isAlone = false;
      begun.set(instance_id, { tier, at_ms, worker_id, isAlone: others.length === 0 });
      continue;
    }
    const start = begun.get(instance_id);
    begun.delete(instance_id);
    if (start !== undefined)
      starts.push({ tier: start.tier, took_ms: at_ms - start.at_ms, isAlone: start.isAlone });
  }
  return starts;
}

function simulatedFleet({ memory_bytes, weights_bytes, facts }: Fleet, measured: Measured): SimulatedCluster {
  return simulatedCluster.parse({
    hosts: [
      {
        ...{
          name: "worker",
          count: plan.workers,
          devices: 1,
          device_kind: "cpu",
          device_memory_bytes: memory_bytes,
        },
        ...{ host_memory_bytes: cache_bytes, disk_bytes: 1e12 },
        disk_bytes_per_s: measured.disk_bytes_per_s,
      },
    ],
    models: [
      {
        ...{ name: "m", copies: plan.models, weights_bytes, kv_bytes_per_token: facts.kv_bytes_per_token },
        ...{ embedding: facts.embedding, vocabulary_tokens: facts.vocabulary_tokens, slots: 1 },
        ...{ context_tokens: plan.context_tokens, prefill_ms_per_token: 0, token_ms: measured.token_ms },
        ...{ build_ms: 0, init_ms: measured.init_ms, stop_ms: 30, keep_alive_ms: plan.keep_alive_ms },
      },
    ],
    system: { fetch: false, migrate: false, park_ms: 0, turn_ms: 250 },
  });
}
