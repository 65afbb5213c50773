/** Starts of several models on a small live cluster, with what each was expected to take. */
import { mkdirSync } from "node:fs";
import path from "node:path";
import { z } from "zod";
import { makeModel } from "../../models/make-model.ts";
import { TestCluster } from "../../support/cluster.ts";
import { eventually } from "../../support/eventually.ts";

/** As the gateway logs each start that ended well. */
const estimatedStart = z.object({
  event: z.literal("start_estimated"),
  model_id: z.string(),
  worker_id: z.string(),
  /** What the bytes came from and what the engine began with. */
  tier: z.string(),
  how: z.string(),
  is_beside: z.boolean(),
  queued_ms: z.number(),
  estimate_ms: z.number(),
  actual_ms: z.number(),
});
export type EstimatedStart = z.infer<typeof estimatedStart>;

export interface StartsPlan {
  readonly workers: number;
  readonly sizes_bytes: readonly number[];
  /** Requests, one after the other; most of them start something. */
  readonly requests: number;
  /** Mean pause between requests: below the time of an answer they overlap. */
  readonly pause_ms: number;
  readonly seed: number;
}

/** Numbers from 0 to 1 that are the same for the same seed. */
function chance(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Runs the plan and returns its starts in the order in which they ended. */
export async function observeStarts(
  plan: StartsPlan,
  say: (text: string) => void,
): Promise<EstimatedStart[]> {
  const largest = Math.max(...plan.sizes_bytes);
  const total = plan.sizes_bytes.reduce((sum, bytes) => sum + bytes, 0);
  const cluster = await TestCluster.start({
    workers: plan.workers,
    gateway: { SLLM_GATEWAY_PARK_MS: "1500" },
    // Part of the models fits the host tier, so that some starts are from memory and some from disk.
    worker: {
      SLLM_WORKER_HOST_CACHE_BYTES: String(Math.max(largest, Math.round(total / 2))),
      // Loads find memory as they do on a worker that has been up for a while.
      SLLM_WORKER_PREFAULT_BYTES: String(2 * total),
    },
  });
  try {
    mkdirSync(path.join(cluster.folder, "models"));
    const models: string[] = [];
    for (const [i, size_bytes] of plan.sizes_bytes.entries()) {
      const out = path.join(cluster.folder, "models", `m${i}.gguf`);
      await makeModel({ architecture: "llama", size_bytes, type: "f16", out, seed: i + 1 });
      await cluster.deploy(`m${i}`, out, { keep_alive_ms: 300, context_tokens: 128, slots: 2 });
      models.push(`m${i}`);
    }
    for (const worker of cluster.workers) {
      await eventually("the arena is there", () => worker.log().includes("arena_prefaulted"), 60_000);
    }
    say(`${models.length} models are deployed`);
    await run(cluster, models, plan);
    return startsIn(cluster.gateway.log());
  } finally {
    await cluster.close();
  }
}

async function run(cluster: TestCluster, models: readonly string[], plan: StartsPlan): Promise<void> {
  const draw = chance(plan.seed);
  const answers: Promise<void>[] = [];
  for (let i = 0; i < plan.requests; i++) {
    const model = models[Math.floor(draw() * models.length)] ?? "";
    answers.push(ask(cluster, model));
    await Bun.sleep(-Math.log(1 - draw()) * plan.pause_ms);
  }
  await Promise.all(answers);
}

async function ask(cluster: TestCluster, model: string): Promise<void> {
  const messages = [{ role: "user", content: "Hello" }];
  const answer = await cluster.post("/v1/chat/completions", { model, messages, max_tokens: 4 });
  const text = await answer.text();
  if (answer.status !== 200) throw new Error(`${model}: ${answer.status} ${text}`);
}

function startsIn(log: string): EstimatedStart[] {
  const starts: EstimatedStart[] = [];
  for (const line of log.split("\n")) {
    if (!line.includes('"start_estimated"')) continue;
    starts.push(estimatedStart.parse(JSON.parse(line)));
  }
  return starts;
}
