/**
 * Several gateways on one Postgres with a fleet of workers: nothing is booked twice and no request is lost, whichever
 * gateway dies, while the database is away, and when all gateways start anew.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { limits } from "../../schema/limits.ts";
import { findWrongBooks } from "../support/cluster-invariants.ts";
import { eventually } from "../support/eventually.ts";
import type { FleetWorker } from "../support/fleet-worker.ts";
import { GatewayFleet } from "../support/gateway-fleet.ts";

/** More models than the fleet has room for. */
const size = { gateways: 3, workers: 20, models: 44, token_ms: 4 };
const [first, second, third] = [0, 1, 2];

let fleet: GatewayFleet;
beforeAll(async () => {
  fleet = await GatewayFleet.start(size);
}, 60_000);
afterAll(async () => {
  await fleet?.stop();
}, 60_000);

/** What is booked in the database is what its instances hold, and never more than the device has. */
async function checkBooks(): Promise<void> {
  const { devices, instances } = await fleet.store.snapshot();
  expect(findWrongBooks(devices, instances)).toEqual([]);
  // The workers keep books of their own: they would have refused what the gateways booked twice.
  expect(
    fleet.workers.flatMap((worker) => worker.refusals).filter((code) => code === "insufficient_memory"),
  ).toEqual([]);
}

const liveInstances = async () =>
  (await fleet.store.snapshot()).instances.map((row) => `${row.instance_id} ${row.state}`).toSorted();
/** The same once nothing starts or stops: what a test before left behind is none of the next one's doing. */
const settledInstances = () =>
  eventually("nothing starts or stops", async () => {
    const live = await liveInstances();
    return live.every((text) => text.endsWith(" ready")) ? live : undefined;
  });
const lostWorkers = async () =>
  (await fleet.store.listEvents({ entity: "worker", limit: 1_000 })).filter(
    (event) => event.to_state === "lost",
  );
const workerStates = async () => new Set((await fleet.store.snapshot()).workers.map((row) => row.state));
const total = (count: (worker: FleetWorker) => number) =>
  fleet.workers.reduce((sum, worker) => sum + count(worker), 0);

/** Models by whether an instance of them is ready. */
async function modelsThatRun(): Promise<{ warm: string[]; cold: string[] }> {
  const { instances } = await fleet.store.snapshot();
  const runs = (model: string) => instances.some((row) => row.model_id === model && row.state === "ready");
  return { warm: fleet.models.filter(runs), cold: fleet.models.filter((model) => !runs(model)) };
}

test("cold models asked for through all gateways at once start once each, and every request is answered", async () => {
  const requests = fleet.models.flatMap((model) =>
    [first, second, third].map((gateway) => fleet.ask(model, 8, gateway)),
  );
  expect(await Promise.all(requests)).toEqual(requests.map(() => 8));
  await checkBooks();
  const begun = fleet.workers.flatMap((worker) => worker.begun);
  expect(new Set(begun).size).toBe(begun.length);
  const [{ rows } = { rows: 0 }] = await fleet.database.db.execute<{ rows: number }>(
    sql`select count(*)::integer as rows from instances`,
  );
  expect(rows).toBe(begun.length);
  await eventually("every request is on record", async () => {
    const [row] = await fleet.database.db.execute<{ finished: number }>(
      sql`select count(*)::integer as finished from generations where state = 'finished' and decisions is not null`,
    );
    return row?.finished === requests.length;
  });
}, 60_000);

test("when the leader dies another gateway leads within two leases; streams of the others and all workers go on", async () => {
  const dead = await fleet.leader();
  expect(dead).toBeGreaterThanOrEqual(0);
  const others = [first, second, third].filter((index) => index !== dead);
  const { warm } = await modelsThatRun();
  const streams = warm.slice(0, 6).map((model, i) => fleet.ask(model, 500, others[i % 2] ?? first));
  await fleet.killGateway(dead);
  const died_ms = performance.now();
  await eventually("another one leads", async () => others.includes(await fleet.leader()));
  expect(performance.now() - died_ms).toBeLessThan(2 * limits.leader_lease_ms);
  expect(await Promise.all(streams)).toEqual(streams.map(() => 500));
  const deadUrl = fleet.urlOf(dead);
  await eventually("all workers report elsewhere", () =>
    fleet.workers.every((worker) => worker.gateway !== null && worker.gateway !== deadUrl),
  );
  await fleet.restartGateway(dead);
  expect(await lostWorkers()).toEqual([]);
  await checkBooks();
}, 60_000);

test("while the database is away warm requests run and cold ones wait; when it is back nothing fails over", async () => {
  const before = await settledInstances();
  const { warm, cold } = await modelsThatRun();
  const gateways = [first, second, third];
  const running = warm.slice(0, 6).map((model, i) => fleet.ask(model, 1_500, i));
  fleet.relay.close();
  const waiting = fleet.ask(cold[0] ?? "", 8, first);
  // Its failure is met below.
  waiting.catch(() => {});
  let isOver = false;
  void waiting.finally(() => {
    isOver = true;
  });
  const end_ms = performance.now() + limits.worker_lease_ms + 1_500;
  while (performance.now() < end_ms) {
    for (const gateway of gateways) expect(await fleet.ask(warm[gateway] ?? "", 8, gateway)).toBe(8);
    await Bun.sleep(100);
  }
  expect(isOver).toBe(false);
  await fleet.relay.open();
  expect(await waiting).toBe(8);
  expect(await Promise.all(running)).toEqual(running.map(() => 1_500));
  await eventually("all workers report again", async () => {
    const states = await workerStates();
    return (
      fleet.workers.every((worker) => worker.gateway !== null) && states.size === 1 && states.has("ready")
    );
  });
  await Bun.sleep(limits.worker_lease_ms);
  expect(await lostWorkers()).toEqual([]);
  const after = new Set(await liveInstances());
  // One may have made room for the cold model.
  expect(before.filter((instance) => !after.has(instance)).length).toBeLessThanOrEqual(1);
  await checkBooks();
}, 90_000);

test("all gateways killed and started anew: what runs at workers goes on, and nothing is forgotten", async () => {
  const before = await settledInstances();
  const { warm } = await modelsThatRun();
  const [finished, begun] = [total((w) => w.engines.finished), total((w) => w.begun.length)];
  let started = 0;
  const streams = warm.slice(0, 6).map((model, i) => {
    const heard = Promise.withResolvers<void>();
    const stream = fleet.ask(model, 500, i, () => heard.resolve());
    // Their clients' connections end with the gateways.
    stream.catch(() => {});
    void heard.promise.then(() => {
      started += 1;
    });
    return stream;
  });
  await eventually("all streams run", () => started === streams.length);
  await Promise.all([first, second, third].map((index) => fleet.killGateway(index)));
  await Promise.all([first, second, third].map((index) => fleet.restartGateway(index)));
  await eventually("all answers come to their end", () => total((w) => w.engines.finished) === finished + 6);
  await eventually("one gateway leads", async () => (await fleet.leader()) >= 0);
  expect(await liveInstances()).toEqual(before);
  const answers = warm.map((model, i) => fleet.ask(model, 8, i));
  expect(await Promise.all(answers)).toEqual(answers.map(() => 8));
  expect(total((w) => w.begun.length)).toBe(begun);
  expect(total((w) => w.engines.cancelled)).toBe(0);
  await eventually("all workers report", () => fleet.workers.every((worker) => worker.gateway !== null));
  expect(await lostWorkers()).toEqual([]);
  await checkBooks();
}, 60_000);

test("a worker that was cut off is lost, lets go what it held when it comes back, and serves again", async () => {
  const { warm } = await modelsThatRun();
  const worker = fleet.workers.find((one) => one.live().length > 0);
  if (worker === undefined) throw new Error("no worker runs anything");
  const held = worker.live();
  const isEverywhere = async (state: string) => {
    const seen = await Promise.all([first, second, third].map((gateway) => fleet.stateOf(worker, gateway)));
    return seen.every((one) => one === state);
  };
  worker.isCutOff = true;
  await eventually("all gateways know that it is lost", () => isEverywhere("lost"));
  const instances = await liveInstances();
  for (const instance_id of held) expect(instances.some((text) => text.startsWith(instance_id))).toBe(false);
  const elsewhere = warm.map((model, i) => fleet.ask(model, 8, i));
  expect(await Promise.all(elsewhere)).toEqual(elsewhere.map(() => 8));
  worker.isCutOff = false;
  await eventually("it is ready", () => isEverywhere("ready"));
  await eventually("it has let go", () => !worker.live().some((instance_id) => held.includes(instance_id)));
  await checkBooks();
}, 60_000);

test("of two processes with one id the later one counts; calls for the earlier one are refused by both", async () => {
  const old = fleet.workers[0];
  if (old === undefined) throw new Error("there are workers");
  const next = fleet.startWorker(0, old.worker_id);
  fleet.workers.push(next);
  await eventually("the earlier one knows", () => old.isSuperseded);
  const row = (await fleet.store.snapshot()).workers.find((worker) => worker.worker_id === old.worker_id);
  expect(row).toMatchObject({ incarnation: next.incarnation, state: "ready" });
  const ask = (incarnation: string) =>
    fetch(`${row?.url}/v1/loads`, {
      headers: { authorization: "Bearer cluster-token-of-the-fleet", "x-sllm-incarnation": incarnation },
    });
  expect((await ask(old.incarnation)).status).toBe(409);
  expect((await ask(next.incarnation)).status).toBe(200);
  const answers = fleet.models.slice(0, 30).map((model, i) => fleet.ask(model, 4, i));
  expect(await Promise.all(answers)).toEqual(answers.map(() => 4));
  expect(old.isSuperseded).toBe(true);
  await checkBooks();
}, 60_000);
