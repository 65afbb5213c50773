/**
 * Streams that move at random between workers all the time, asked for at either of two gateways, with real processes:
 * every answer must be the undisturbed one. The long form is `npm run test:fault`.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { adminMigrationList } from "../../schema/api/migrations.ts";
import { runningGenerations } from "../../schema/cluster/moves.ts";
import { clusterToken } from "../support/cluster.ts";
import { eventually } from "../support/eventually.ts";
import { testSeed } from "../support/property.ts";
import { randomFrom, StreamCluster } from "../support/stream-cluster.ts";
import { describeOutcome, type KnownStream, knownStreams, runStreams } from "../support/stream-load.ts";

const long = process.env.SLLM_TEST_LONG === "1";
const streams = Number(process.env.SLLM_TEST_STREAMS ?? (long ? 1_000 : 50));
const atOnce = long ? 64 : 16;
const limit_ms = long ? 1_800_000 : 120_000;

let cluster: StreamCluster;
let known: KnownStream[];
beforeAll(async () => {
  cluster = await StreamCluster.start(2, 3);
  known = await knownStreams(cluster.urls[0] ?? "");
}, 120_000);
afterAll(() => cluster?.close(), 60_000);

/** What runs on a worker now. */
async function running(url: string): Promise<string[]> {
  const response = await fetch(`${url}/v1/generations`, {
    headers: { authorization: `Bearer ${clusterToken}` },
  });
  const { data } = runningGenerations.parse(await response.json());
  return data.map(({ generation_id }) => generation_id);
}

/** Asks for moves of everything that runs, to wherever chance says, until told to stop. */
async function moveAtRandom(random: () => number, isOver: () => boolean): Promise<number> {
  let asked = 0;
  const pick = <T>(all: readonly T[]): T | undefined => all[Math.floor(random() * all.length)];
  while (!isOver()) {
    const from = pick(cluster.workers);
    const ids = from === undefined ? [] : await running(from.url);
    const generation_id = pick(ids);
    if (generation_id === undefined) {
      await Bun.sleep(20);
      continue;
    }
    // One that has ended, or is on its way already, is refused.
    const response = await fetch(`${pick(cluster.urls)}/admin/v1/generations/${generation_id}/move`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "{}",
    });
    if (response.ok) asked += 1;
    await response.text();
  }
  return asked;
}

test(
  "streams that move at random tell every token once, and are the answers that nothing disturbed",
  async () => {
    let isOver = false;
    const movers = [1, 2, 3].map((i) => moveAtRandom(randomFrom(testSeed + i), () => isOver));
    const urlOf = (i: number) => cluster.urls[i % cluster.urls.length] ?? "";
    const outcome = await runStreams(known, { streams, atOnce, send: fetch, urlOf });
    isOver = true;
    const asked = (await Promise.all(movers)).reduce((sum, count) => sum + count, 0);
    const moves = await eventually("all moves have ended", async () => {
      const response = await fetch(`${cluster.urls[0]}/admin/v1/migrations?limit=1000`);
      const { data } = adminMigrationList.parse(await response.json());
      return data.every(({ ended_at }) => ended_at !== null) ? data : null;
    });
    const ended = (state: string) => moves.filter((move) => move.state === state);
    const reasons = [...new Set(ended("failed").map(({ error }) => `${error?.code}: ${error?.message}`))];
    process.stderr.write(
      `seed ${testSeed}: ${describeOutcome(outcome)}; ${asked} moves asked for, of the last ${moves.length} ` +
        `${ended("finished").length} finished, ${ended("dropped").length} dropped, ${ended("failed").length} failed\n` +
        reasons.map((reason) => `  ${reason}\n`).join(""),
    );
    expect(outcome.wrong).toEqual([]);
    expect(ended("finished").length).toBeGreaterThan(0);
    const left = await Promise.all(cluster.workers.map(({ url }) => running(url)));
    expect(left.flat()).toEqual([]);
  },
  limit_ms,
);
