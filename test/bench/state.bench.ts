/**
 * What it costs a gateway to keep its knowledge of the cluster fresh: reading everything against reading what changed, on
 * a Postgres server, for fleets with more and more placements.
 *
 *   npm run bench -- state [--json] [--quick]
 */
import { parseArgs } from "node:util";
import { migrate } from "../../gateway/main/migrate.ts";
import { ClusterMirror } from "../../gateway/placement/cluster-mirror.ts";
import type { StateStore } from "../../gateway/ports.ts";
import { openDatabase } from "../../gateway/store/database.ts";
import { createStateStore } from "../../gateway/store/state-store.ts";
import { systemClock } from "../../gateway/system/clock.ts";
import type { RegisterRequest } from "../../schema/cluster/membership.ts";
import { limits } from "../../schema/limits.ts";
import { makeHeartbeat, makePlacement, makeRegisterRequest } from "../support/cluster-facts.ts";
import { createDatabase, startPostgres } from "../support/postgres.ts";
import { machine } from "./machine.ts";
import { quantile } from "./statistics.ts";

const { values } = parseArgs({
  options: { json: { type: "boolean", default: false }, quick: { type: "boolean", default: false } },
});
const say = (text: string) => (values.json ? process.stderr.write(`${text}\n`) : console.log(text));
const ms = (value: number) => Number(value.toFixed(2));

interface ReadTimes {
  readonly workers: number;
  readonly placements: number;
  readonly whole_p50_ms: number;
  readonly changes_p50_ms: number;
  readonly changes_p90_ms: number;
}

async function timed(action: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await action();
  return performance.now() - begin;
}

/** As many heartbeats as come between two reads, each as always: nothing new but the sign of life. */
async function beat(store: StateStore, workers: readonly RegisterRequest[], round: number): Promise<void> {
  const share = Math.ceil((workers.length * limits.reconcile_ms) / limits.heartbeat_ms);
  const begin = (round * share) % workers.length;
  for (const worker of workers.slice(begin, begin + share)) {
    await store.heartbeat(makeHeartbeat(worker, round, { placements: worker.placements }));
  }
}

async function measure(
  store: StateStore,
  perWorker: number,
  count: number,
  rounds: number,
): Promise<ReadTimes> {
  const workers = Array.from({ length: count }, () =>
    makeRegisterRequest({ placements: Array.from({ length: perWorker }, () => makePlacement()) }),
  );
  for (const worker of workers) await store.registerWorker(worker);
  const mirror = new ClusterMirror();
  mirror.take(await store.changes(null));
  const [whole, changes]: [number[], number[]] = [[], []];
  for (let round = 1; round <= rounds; round++) {
    await beat(store, workers, round);
    whole.push(await timed(() => store.snapshot()));
    changes.push(await timed(async () => mirror.take(await store.changes(mirror.mark))));
  }
  return {
    workers: count,
    placements: count * perWorker,
    whole_p50_ms: ms(quantile(whole, 0.5)),
    changes_p50_ms: ms(quantile(changes, 0.5)),
    changes_p90_ms: ms(quantile(changes, 0.9)),
  };
}

const facts = machine();
say(JSON.stringify(facts));
const server = await startPostgres();
const reads: ReadTimes[] = [];
try {
  for (const workers of values.quick ? [10, 100] : [10, 100, 400]) {
    const { url, drop } = await createDatabase(server);
    const database = openDatabase(url, { max: 1 });
    await migrate(database.db);
    const times = await measure(
      createStateStore(database, systemClock),
      100,
      workers,
      values.quick ? 10 : 20,
    );
    const { placements, whole_p50_ms, changes_p50_ms, changes_p90_ms } = times;
    say(`${workers} workers, ${placements} placements: everything ${whole_p50_ms} ms`);
    say(`  what changed ${changes_p50_ms} ms (90 %: ${changes_p90_ms} ms)`);
    reads.push(times);
    await database.close(1_000);
    await drop();
  }
} finally {
  await server.stop();
}
if (values.json) console.log(JSON.stringify({ benchmark: "state", machine: facts, reads }));
