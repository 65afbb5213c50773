/** Streams that move between workers while a client reads them: by hand, when a worker drains, and to make room. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { type AdminMigration, adminMigration, adminMigrationList } from "../../schema/api/migrations.ts";
import { type OpenStream, openStream } from "../support/chat-streams.ts";
import { TestCluster } from "../support/cluster.ts";
import { eventually } from "../support/eventually.ts";

setDefaultTimeout(120_000);

let cluster: TestCluster;
beforeAll(async () => {
  cluster = await TestCluster.start({ workers: 2 });
  const settings = { deterministic: true, context_tokens: 1_024, slots: 4, min_instances: 2 };
  await cluster.deploy("shakespeare", undefined, settings);
  await eventually(
    "both instances are ready",
    async () => {
      const ready = (await cluster.adminInstances()).filter((i) => i.state === "ready");
      return ready.length === 2;
    },
    60_000,
  );
}, 120_000);
afterAll(() => cluster?.close(), 60_000);

const ask = (seed: number, max_tokens = 400): Promise<OpenStream> =>
  openStream(cluster.url, {
    model: "shakespeare",
    messages: [{ role: "user", content: "To be, or not to be" }],
    ...{ seed, temperature: 0.8, max_tokens, ignore_eos: true },
  });

async function move(generation_id: string, body: object = {}): Promise<{ status: number; body: unknown }> {
  const response = await cluster.post(`/admin/v1/generations/${generation_id}/move`, body);
  return { status: response.status, body: await response.json() };
}

async function migrationsOf(generation_id: string): Promise<AdminMigration[]> {
  const response = await fetch(`${cluster.url}/admin/v1/migrations?generation_id=${generation_id}`);
  return adminMigrationList.parse(await response.json()).data;
}

async function ended(generation_id: string): Promise<AdminMigration> {
  return eventually("the move has ended", async () =>
    (await migrationsOf(generation_id)).find((m) => m.ended_at !== null),
  );
}

test("a stream that is moved by hand goes on as if nothing had been, and its move is on record", async () => {
  const undisturbed = await (await ask(1)).read();
  const stream = await ask(1);
  await stream.until(20);
  const { status, body } = await move(stream.generation_id);
  expect(status).toBe(202);
  const begun = adminMigration.parse(body);
  const answer = await stream.read();
  expect(answer.text).toBe(undisturbed.text);
  expect(answer.usage).toEqual(undisturbed.usage);
  expect(answer.problems).toEqual([]);
  const row = await ended(stream.generation_id);
  expect(row).toMatchObject({ state: "finished", migration_id: begun.migration_id, method: "recompute" });
  expect(row.to_worker_id).not.toBe(row.from_worker_id);
  expect(row.rounds).toBeGreaterThan(0);
  expect(row.timings_ms).toMatchObject({ copy: expect.any(Number), handed_over: expect.any(Number) });
  expect(answer.workers).toEqual([row.from_worker_id, row.to_worker_id]);
});
