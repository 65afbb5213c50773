/**
 * Streams through everything that can break, with real processes: engines and workers killed and stopped, gateways killed
 * under clients that come back, all of them restarted in turn. Every answer must be the undisturbed one. The long form is
 * `npm run test:fault`.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import OpenAI from "openai";
import { createResumingFetch } from "sllm/resuming-fetch";
import { runningGenerations } from "../../schema/cluster/moves.ts";
import { limits } from "../../schema/limits.ts";
import { clusterToken } from "../support/cluster.ts";
import { eventually } from "../support/eventually.ts";
import { testSeed } from "../support/property.ts";
import { readSse } from "../support/sse-client.ts";
import { randomFrom, StreamCluster } from "../support/stream-cluster.ts";
import { exactModel } from "../support/stream-kinds.ts";
import {
  describeOutcome,
  joinOutcomes,
  type KnownStream,
  knownStreams,
  type LoadOutcome,
  runStreams,
} from "../support/stream-load.ts";
import { longestPauses } from "../support/stream-waits.ts";

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
      (long ? longestPauses(outcome.waits, 5) : ""),
  );
  return { outcome, done };
}

test.if(long)(
  "streams that nothing disturbs are right: what load alone does to pauses and to inexact models",
  async () => {
    const urlOf = (i: number) => cluster.urls[i % 2] ?? "";
    const outcome = await runStreams(known, { streams, atOnce, send: fetch, urlOf });
    process.stderr.write(`undisturbed: ${describeOutcome(outcome)}\n${longestPauses(outcome.waits, 5)}`);
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

/** Long enough that much is left of it when something has happened. */
const longOne = { model: exactModel, prompt: "ROMEO:\n", temperature: 0, max_tokens: 300, ignore_eos: true };

/** Its answer when nothing happens, once it was asked for. */
let undisturbed: string | undefined;

/** Reads it to its end; `onToken` hears the ids of its events. */
async function readLong(onToken: (id: string) => void): Promise<{ text: string; pause_ms: number }> {
  const response = await fetch(`${cluster.urls[0]}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...longOne, stream: true }),
  });
  let [text, at_ms, pause_ms] = ["", performance.now(), 0];
  for await (const event of readSse(response)) {
    if (event.kind === "comment" || event.data === "[DONE]") continue;
    if (text !== "") pause_ms = Math.max(pause_ms, event.at_ms - at_ms);
    at_ms = event.at_ms;
    text += JSON.parse(event.data).choices[0]?.text ?? "";
    onToken(event.id ?? "");
  }
  return { text, pause_ms };
}

/** Whether a worker says that it runs a generation. */
async function runsAt(url: string, generation_id: string): Promise<boolean> {
  const response = await fetch(`${url}/v1/generations`, {
    headers: { authorization: `Bearer ${clusterToken}` },
  });
  const { data } = runningGenerations.parse(await response.json());
  return data.some((one) => one.generation_id === generation_id);
}

test("a worker that is stopped loses its stream within two beats, and adds nothing to it when it goes on", async () => {
  undisturbed ??= (await readLong(() => {})).text;
  const urls = new Map<string, string>();
  for (const { url } of cluster.workers) urls.set(await cluster.workerIdAt(url), url);
  let [stopped, generation_id, events]: [string | null, string, number] = [null, "", 0];
  const signal = (worker_id: string | null, name: NodeJS.Signals) =>
    cluster.workers.find(({ url }) => url === urls.get(worker_id ?? ""))?.kill(name);
  const { text, pause_ms } = await readLong((id) => {
    events += 1;
    const [generation = "", worker_id = ""] = id.split(/[@:]/);
    generation_id = generation;
    if (events === 50) {
      stopped = worker_id;
      signal(worker_id, "SIGSTOP");
      // It wakes in the middle of what has gone on without it.
    } else if (stopped !== null && worker_id !== stopped) signal(stopped, "SIGCONT");
  });
  signal(stopped, "SIGCONT");
  expect(text).toBe(undisturbed);
  // Noticed in two beats and some slack; the rest is a place, what was told so far, and a busy machine.
  expect(pause_ms).toBeGreaterThan(limits.stream_beat_ms);
  expect(pause_ms).toBeLessThan(limits.stream_silence_ms + 3_000);
  const zombie = urls.get(stopped ?? "") ?? "";
  await eventually("it has let go of the stream", async () => !(await runsAt(zombie, generation_id)));
  await cluster.recovered();
}, 60_000);

test("the openai client with sllm/resuming-fetch reads one whole answer although its gateway is killed", async () => {
  undisturbed ??= (await readLong(() => {})).text;
  const client = new OpenAI({
    ...{ apiKey: "any", baseURL: `${cluster.urls[0]}/v1`, maxRetries: 0 },
    fetch: createResumingFetch({ gateways: cluster.urls }),
  });
  const stream_options = { include_usage: true };
  const stream = await client.completions.create({ ...longOne, stream: true, stream_options });
  let [text, ends, tokens, killed]: [string, number, number, Promise<void> | null] = ["", 0, 0, null];
  for await (const { choices, usage } of stream) {
    text += choices[0]?.text ?? "";
    if (choices[0]?.finish_reason === "length") ends += 1;
    tokens = usage?.completion_tokens ?? tokens;
    if (text.length > 100) killed ??= cluster.endGateway(0);
  }
  expect(killed).not.toBeNull();
  expect({ text, ends, tokens }).toEqual({ text: undisturbed, ends: 1, tokens: longOne.max_tokens });
  await cluster.reviveGateway(0);
}, 60_000);
