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
  type KnownStream,
  knownStreams,
  type LoadOutcome,
  quantile,
  runStreams,
} from "../support/stream-load.ts";

const long = process.env.SLLM_TEST_LONG === "1";
const streams = Number(process.env.SLLM_TEST_STREAMS ?? (long ? 1_000 : 50));
const atOnce = long ? 64 : 16;
/** Between two kills of gateways: some streams have to get on in the meantime. */
const betweenKills_ms = long ? 3_000 : 1_000;
const limit_ms = long ? 1_800_000 : 120_000;

let cluster: StreamCluster;
let known: KnownStream[];
beforeAll(async () => {
  cluster = await StreamCluster.start(2, 3);
  known = await knownStreams(cluster.urls[0] ?? "", cluster.model);
}, 120_000);
afterAll(() => cluster?.close(), 60_000);

/** So many disturbances, or as many as happen while the streams of the long form run. */
const disturbances = long ? Number.POSITIVE_INFINITY : 4;

/** Runs streams while something is disturbed over and over. */
async function under(
  disturb: (random: () => number, count: number) => Promise<string>,
  load: Omit<Parameters<typeof runStreams>[1], "streams" | "atOnce">,
): Promise<{ outcome: LoadOutcome; done: string[] }> {
  const random = randomFrom(testSeed);
  const done: string[] = [];
  let isOver = false;
  const disturbing = (async () => {
    while (!isOver && done.length < disturbances) {
      done.push(await disturb(random, done.length));
      await cluster.recovered();
    }
  })();
  // Short streams alone would be over before anything breaks.
  let outcome = await runStreams(known, { ...load, streams, atOnce });
  while (done.length < Math.min(disturbances, 4)) {
    const more = await runStreams(known, { ...load, streams: atOnce, atOnce });
    outcome = {
      streams: outcome.streams + more.streams,
      wrong: [...outcome.wrong, ...more.wrong],
      pauses_ms: [...outcome.pauses_ms, ...more.pauses_ms],
    };
  }
  isOver = true;
  await disturbing;
  const { pauses_ms } = outcome;
  const pause = `longest pause p50 ${quantile(pauses_ms, 0.5).toFixed(0)} ms, p99 ${quantile(pauses_ms, 0.99).toFixed(0)} ms`;
  process.stderr.write(`seed ${testSeed}: ${outcome.streams} streams, ${done.join(", ")}; ${pause}\n`);
  return { outcome, done };
}

test(
  "engines and workers that are killed or stopped cost no stream a token",
  async () => {
    const kinds = ["killEngine", "stopEngineForAWhile", "killWorker", "stopWorkerForAWhile"] as const;
    const disturb = async (random: () => number, count: number) => {
      const kind = kinds[long ? Math.floor(random() * kinds.length) : count % kinds.length] ?? "killEngine";
      const worker = Math.floor(random() * cluster.workers.length);
      await cluster[kind](worker);
      return `${kind} ${worker}`;
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
      return `killGateway ${gateway}`;
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
    for (const step of steps) {
      await step();
      await cluster.recovered();
    }
    isOver = true;
    await loading;
    const count = outcomes.reduce((sum, outcome) => sum + outcome.streams, 0);
    process.stderr.write(`rolling restart: ${count} streams\n`);
    expect(outcomes.flatMap(({ wrong }) => wrong)).toEqual([]);
  },
  limit_ms,
);
