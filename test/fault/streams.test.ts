/**
 * Streams through everything that can break, with real processes: engines and workers killed and stopped, gateways killed
 * under clients that come back, all of them restarted in turn. Every answer must be the undisturbed one. The long form is
 * `npm run test:fault`.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { createResumingFetch } from "../../deploy/client/resuming-fetch.mjs";
import { testSeed } from "../support/property.ts";
import { randomFrom, StreamCluster } from "../support/stream-cluster.ts";
import {
  describeOutcome,
  joinOutcomes,
  type KnownStream,
  knownStreams,
  type LoadOutcome,
  longestPauses,
  runStreams,
} from "../support/stream-load.ts";

const long = process.env.SLLM_TEST_LONG === "1";
const streams = Number(process.env.SLLM_TEST_STREAMS ?? (long ? 1_000 : 50));
const atOnce = long ? 64 : 16;
/** Between two kills of gateways: some streams have to get on in the meantime. */
const betweenKills_ms = long ? 3_000 : 1_000;
/** The same after any other disturbance: what was lost is computed anew, by few cores. */
const betweenDisturbances_ms = long ? 4_000 : 0;
const limit_ms = long ? 1_800_000 : 120_000;

let cluster: StreamCluster;
let known: KnownStream[];
beforeAll(async () => {
  cluster = await StreamCluster.start(2, 3);
  known = await knownStreams(cluster.urls[0] ?? "");
}, 120_000);
afterAll(() => cluster?.close(), 60_000);

/** So many disturbances, or as many as happen while the streams of the long form run. */
const disturbances = long ? Number.POSITIVE_INFINITY : 4;

/** `killEngine 12 times, stopWorker 9 times`. */
function tally(done: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const kind of done) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return [...counts].map(([kind, count]) => `${kind} ${count} times`).join(", ");
}

/** Runs streams while something is disturbed over and over. */
async function under(
  disturb: (random: () => number, count: number) => Promise<string>,
  load: Omit<Parameters<typeof runStreams>[1], "streams" | "atOnce">,
): Promise<{ outcome: LoadOutcome; done: string[] }> {
  const random = randomFrom(testSeed);
  const done: string[] = [];
  const recoveries_ms: number[] = [];
  let isOver = false;
  const disturbing = (async () => {
    while (!isOver && done.length < disturbances) {
      done.push(await disturb(random, done.length));
      const begun_ms = performance.now();
      await cluster.recovered();
      recoveries_ms.push(performance.now() - begun_ms);
    }
  })();
  // Short streams alone would be over before anything breaks.
  const outcomes = [await runStreams(known, { ...load, streams, atOnce })];
  while (done.length < Math.min(disturbances, 4)) {
    outcomes.push(await runStreams(known, { ...load, streams: atOnce, atOnce }));
  }
  isOver = true;
  await disturbing;
  const outcome = joinOutcomes(outcomes);
  const slowest_ms = Math.max(...recoveries_ms).toFixed(0);
  process.stderr.write(
    `seed ${testSeed}: ${describeOutcome(outcome)}; ${tally(done)}, all instances ready again within ${slowest_ms} ms\n` +
      longestPauses(outcome, long ? 5 : 0),
  );
  return { outcome, done };
}

test.if(long)(
  "streams that nothing disturbs are right: what load alone does to pauses and to inexact models",
  async () => {
    const urlOf = (i: number) => cluster.urls[i % 2] ?? "";
    const outcome = await runStreams(known, { streams, atOnce, send: fetch, urlOf });
    process.stderr.write(`undisturbed: ${describeOutcome(outcome)}\n${longestPauses(outcome, 5)}`);
    expect(outcome.wrong).toEqual([]);
  },
  limit_ms,
);

test(
  "engines and workers that are killed or stopped cost no stream a token",
  async () => {
    const kinds = ["killEngine", "stopEngineForAWhile", "killWorker", "stopWorkerForAWhile"] as const;
    const disturb = async (random: () => number, count: number) => {
      const kind = kinds[long ? Math.floor(random() * kinds.length) : count % kinds.length] ?? "killEngine";
      const worker = Math.floor(random() * cluster.workers.length);
      await cluster[kind](worker);
      await Bun.sleep(betweenDisturbances_ms);
      return kind;
    };
    const urlOf = (i: number) => cluster.urls[i % cluster.urls.length] ?? "";
    const { outcome } = await under(disturb, { send: fetch, urlOf });
    expect(outcome.wrong).toEqual([]);
  },
  limit_ms,
);

test(
  "gateways that are killed cost no client that comes back a token",
  async () => {
    const disturb = async (_: () => number, count: number) => {
      const gateway = count % 2;
      await cluster.killGateway(gateway);
      await Bun.sleep(betweenKills_ms);
      return "killGateway";
    };
    const send = createResumingFetch({ gateways: cluster.urls });
    const { outcome } = await under(disturb, { send, urlOf: (i) => cluster.urls[i % 2] ?? "" });
    expect(outcome.wrong).toEqual([]);
  },
  limit_ms,
);

test(
  "a restart of every worker and every gateway in turn fails no request",
  async () => {
    const steps = [
      () => cluster.restartWorker(0),
      () => cluster.restartGateway(0),
      () => cluster.restartWorker(1),
      () => cluster.restartGateway(1),
      () => cluster.restartWorker(2),
    ];
    const send = createResumingFetch({ gateways: cluster.urls });
    const load = { send, urlOf: (i: number) => cluster.urls[i % 2] ?? "", atOnce };
    let isOver = false;
    const outcomes: LoadOutcome[] = [];
    const loading = (async () => {
      while (!isOver) outcomes.push(await runStreams(known, { ...load, streams: atOnce }));
    })();
    const isEnough = () => !long || outcomes.reduce((sum, { streams }) => sum + streams, 0) >= streams;
    let rounds = 0;
    do {
      for (const step of steps) {
        await step();
        await cluster.recovered();
      }
      rounds += 1;
    } while (!isEnough());
    isOver = true;
    await loading;
    const outcome = joinOutcomes(outcomes);
    process.stderr.write(`restarted ${rounds} times in turn: ${describeOutcome(outcome)}\n`);
    expect(outcome.wrong).toEqual([]);
  },
  limit_ms,
);
