/** The rounds of one model: in each of them every subject once, ours and the router within seconds of each other. */

import type { Case } from "../load/cases.ts";
import { type Ceiling, type CeilingSetting, ceiling, evict } from "../load/programs.ts";
import { LlamaRouter } from "../peers/llama-router.ts";
import { ttftMs } from "./first-event.ts";
import { type ClusterMemory, OurCluster } from "./our-cluster.ts";

/** Milliseconds to the first token, per round. */
export interface Round {
  readonly ours: OurTimes;
  /** Null where llama-server was not built. */
  readonly router: Times | null;
  /** One reading of the weights by the disk alone. */
  readonly ceiling_ms: number;
}

export interface Times {
  /** Nothing runs; the model's file is evicted. */
  readonly disk: number;
  /** Nothing runs; host memory holds the weights: our host tier, the router's page cache. */
  readonly host: number;
  /** The model runs and is idle. */
  readonly warm: number;
}

export interface OurTimes extends Times {
  /** The instance is parked, and the host tier holds the weights. */
  readonly parked: number;
}

export interface Measured {
  readonly rounds: readonly Round[];
  readonly memory: { readonly before: ClusterMemory; readonly after: ClusterMemory };
}

export interface MeasureOptions {
  readonly rounds: number;
  readonly threads: number;
  readonly context_tokens: number;
  /** Null: without the peer. */
  readonly router: string | null;
  readonly record: (round: object) => void;
}

const ceilingSetting: CeilingSetting = { method: "threads", block_bytes: 16 << 20, in_flight: 8 };

/** Starts what the rounds need, measures and ends it all. */
export async function measureModel(it: Case, options: MeasureOptions): Promise<Measured> {
  const { threads, context_tokens } = options;
  await using parts = new AsyncDisposableStack();
  const started = async (host_cache_bytes: number, parks: boolean) => {
    const cluster = await OurCluster.start(it, { host_cache_bytes, parks, threads, context_tokens });
    parts.defer(() => cluster.close());
    return cluster;
  };
  const host_cache_bytes = it.manifest.weights.bytes + 2 ** 26;
  const clusters: Clusters = {
    cold: await started(0, false),
    hosted: await started(host_cache_bytes, false),
    parking: await started(host_cache_bytes, true),
  };
  const router = await startRouter(it, options);
  if (router !== null) parts.defer(() => router.close());

  const memory = await clusters.hosted.memoryOfStart();
  // All have run the model once: it is likely to come back.
  await clusters.cold.coldThenWarm();
  await clusters.parking.coldThenWarm();
  const rounds: Round[] = [];
  for (let i = 0; i < options.rounds; i++) {
    const round = await oneRound(it, clusters, router);
    options.record({ model: it.name, ...round });
    rounds.push(round);
  }
  return { rounds, memory };
}

async function startRouter(it: Case, { router, threads, context_tokens }: MeasureOptions) {
  if (router === null) return null;
  return LlamaRouter.start({ program: router, models: { [it.name]: it.gguf }, threads, context_tokens });
}

interface Clusters {
  /** Without a host tier. */
  readonly cold: OurCluster;
  /** Ends idle instances and keeps their weights. */
  readonly hosted: OurCluster;
  /** Parks idle instances. */
  readonly parking: OurCluster;
}

/** One after the other, and each when all clusters rest: filling a reserve takes a processor for seconds. */
async function oneRound(it: Case, clusters: Clusters, router: LlamaRouter | null): Promise<Round> {
  const allRest = () => Promise.all(Object.values(clusters).map((cluster) => cluster.atRest()));
  await allRest();
  const { ms } = coldCeiling(it);
  const { cold: disk } = await clusters.cold.coldThenWarm();
  await allRest();
  const peer = router === null ? null : await routerTimes(it, router);
  await allRest();
  const { cold: host } = await clusters.hosted.coldThenWarm();
  await allRest();
  const { cold: parked, warm } = await clusters.parking.coldThenWarm();
  return { ours: { disk, host, parked, warm }, router: peer, ceiling_ms: ms };
}

function coldCeiling(it: Case): Ceiling {
  const { bytes } = it.manifest.weights;
  evict(it.weights, bytes);
  const measured = ceiling(it.weights, ceilingSetting);
  evict(it.weights, bytes);
  return measured;
}

async function routerTimes(it: Case, router: LlamaRouter): Promise<Times> {
  await router.unload(it.name);
  evict(it.gguf, it.manifest.weights.bytes);
  const disk = await ttftMs(router.url, it.name, "cold");
  const warm = await ttftMs(router.url, it.name, "warm");
  await router.unload(it.name);
  // The load before has left the file in the page cache.
  const host = await ttftMs(router.url, it.name, "cold");
  await router.unload(it.name);
  return { disk, host, warm };
}
