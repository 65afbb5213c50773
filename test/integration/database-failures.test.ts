/**
 * A database that is away, goes away or falls silent: every call ends with `state_unavailable` in bounded time, and
 * the next one after its return works. A relay between store and server plays the network.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { migrate } from "../../gateway/main/migrate.ts";
import type { Clock } from "../../gateway/ports.ts";
import { openDatabase } from "../../gateway/store/database.ts";
import { createStateStore } from "../../gateway/store/state-store.ts";
import { systemClock } from "../../gateway/system/clock.ts";
import { limits } from "../../schema/limits.ts";
import { createDatabase, type PostgresServer, startPostgres } from "../support/postgres.ts";
import { Relay } from "../support/relay.ts";

let server: PostgresServer;
let url: string;
let drop: () => Promise<void>;

beforeAll(async () => {
  server = await startPostgres();
  ({ url, drop } = await createDatabase(server));
  const database = openDatabase(url, { max: 1 });
  await migrate(database.db);
  await database.close(1_000);
}, 60_000);
afterAll(async () => {
  await drop();
  await server.stop();
});

/** Time that runs fast: ten seconds of silence take a tenth of one. */
const fastClock: Clock = {
  ...systemClock,
  sleep: (delay_ms, signal) => systemClock.sleep(delay_ms / 100, signal),
  after: (delay_ms, call) => systemClock.after(delay_ms / 100, call),
};

test("a database that is not there is unavailable", async () => {
  const database = openDatabase("postgres://postgres@127.0.0.1:1/none", { max: 2 });
  const store = createStateStore(database, systemClock);
  await expect(store.ping()).rejects.toMatchObject({ code: "state_unavailable", retryable: true });
  await expect(store.snapshot()).rejects.toMatchObject({ code: "state_unavailable" });
  await database.close(0);
});

test("a server without the wanted database is unavailable", async () => {
  const wrong = new URL(url);
  wrong.pathname = "/nobody_made_this";
  const database = openDatabase(wrong.href, { max: 1 });
  await expect(createStateStore(database, systemClock).ping()).rejects.toMatchObject({
    code: "state_unavailable",
    message: "The database cannot be used (3D000).",
  });
  await database.close(0);
});

test("a broken connection is told, and the next call finds the database that is back", async () => {
  const relay = new Relay(url);
  await relay.open();
  const database = openDatabase(relay.url, { max: 3 });
  const store = createStateStore(database, systemClock);
  await store.ping();
  relay.close();
  await expect(store.snapshot()).rejects.toMatchObject({ code: "state_unavailable" });
  await expect(store.snapshot()).rejects.toMatchObject({ code: "state_unavailable" });
  await relay.open();
  expect((await store.snapshot()).workers).toEqual([]);
  await database.close(1_000);
  relay.close();
});

test("a database that falls silent is unavailable after the time of one call", async () => {
  const relay = new Relay(url);
  await relay.open();
  const database = openDatabase(relay.url, { max: 2 });
  const store = createStateStore(database, fastClock);
  await store.ping();
  relay.silence();
  const start = performance.now();
  const calls = [store.ping(), store.snapshot(), store.deleteModel("any"), store.listModels()];
  const results = await Promise.allSettled(calls);
  for (const result of results) {
    expect(result).toMatchObject({ status: "rejected", reason: { code: "state_unavailable" } });
  }
  expect(performance.now() - start).toBeLessThan(limits.database_call_ms);
  relay.close();
  await relay.open();
  await store.ping();
  await database.close(1_000);
  relay.close();
});
