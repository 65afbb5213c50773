/** Streams that move between workers while a client reads them: by hand, when a worker drains, and to make room. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { tmpdir } from "node:os";
import { type AdminMigration, adminMigration, adminMigrationList } from "../../schema/api/migrations.ts";
import { type OpenStream, openStream } from "../support/chat-streams.ts";
import { TestCluster } from "../support/cluster.ts";
import { programs, runProgram } from "../support/command-line.ts";
import { eventually } from "../support/eventually.ts";

setDefaultTimeout(120_000);

let cluster: TestCluster;
beforeAll(async () => {
  cluster = await TestCluster.start({ workers: 2 });
  const settings = { deterministic: true, context_tokens: 4_096, slots: 4, min_instances: 2 };
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

const ask = (seed: number, max_tokens = 800): Promise<OpenStream> =>
  openStream(cluster.url, {
    model: "shakespeare",
    messages: [{ role: "user", content: "To be, or not to be" }],
    ...{ seed, temperature: 0.8, max_tokens, ignore_eos: true },
  });

async function move(generation_id: string, body: object = {}): Promise<{ status: number; body: unknown }> {
  const response = await cluster.post(`/admin/v1/generations/${generation_id}/move`, body);
  return { status: response.status, body: await response.json() };
}

/** The command with the gateway's address. */
const sllm = (...args: string[]) =>
  runProgram(programs.sllm, [...args, "--url", cluster.url], { folder: tmpdir() });

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
  // How much of the prompt a worker had in its cache is its own matter.
  const { prompt_tokens_details: _, ...usage } = Object(undisturbed.usage);
  expect(answer.usage).toMatchObject(usage);
  expect(answer.problems).toEqual([]);
  const row = await ended(stream.generation_id);
  expect(row).toMatchObject({ state: "finished", migration_id: begun.migration_id, method: "kv_transfer" });
  expect(row.bytes).toBeGreaterThan(0);
  expect(row.to_worker_id).not.toBe(row.from_worker_id);
  expect(row.rounds).toBeGreaterThan(0);
  expect(row.timings_ms).toMatchObject({ copy: expect.any(Number), handed_over: expect.any(Number) });
  expect(answer.workers).toEqual([row.from_worker_id, row.to_worker_id]);
});

test("sllm migrate moves a stream and tells how, and fails with the reason where there is nothing to move", async () => {
  // Long enough for a command to start meanwhile.
  const undisturbed = await (await ask(2, 3_900)).read();
  const stream = await ask(2, 3_900);
  const moved = await sllm("migrate", stream.generation_id);
  const answer = await stream.read();
  expect(answer.text).toBe(undisturbed.text);
  expect(answer.problems).toEqual([]);
  expect(moved).toMatchObject({
    status: 0,
    out: expect.stringMatching(/^w-.* -> w-.* rounds, handed over in/),
  });
  const late = await sllm("migrate", "0".repeat(32));
  expect(late.status).toBe(1);
  expect(late.err).toContain("is not known");
});

test("a stream has one move at a time: others are refused, and the first is not disturbed", async () => {
  const stream = await ask(4, 900);
  await stream.until(10);
  const asked = await Promise.all([1, 2, 3].map(() => move(stream.generation_id)));
  const answer = await stream.read();
  const refused = asked.filter(({ status }) => status !== 202);
  for (const { status, body } of refused) {
    expect(status).toBe(409);
    expect(Object(body).error).toMatchObject({ code: "state_conflict" });
  }
  expect(answer.problems).toEqual([]);
  // One that was over may have been followed by another.
  await eventually("all have ended", async () =>
    (await migrationsOf(stream.generation_id)).every(({ ended_at }) => ended_at !== null),
  );
  const rows = (await migrationsOf(stream.generation_id)).toSorted((a, b) =>
    a.created_at < b.created_at ? -1 : 1,
  );
  expect(rows.length + refused.length).toBe(asked.length);
  for (const [i, row] of rows.entries()) {
    expect(row.created_at >= (rows[i - 1]?.ended_at ?? "")).toBe(true);
  }
});

test("streams that move again and again, all at once, tell every token once and the text of the undisturbed run", async () => {
  const seeds = [11, 12, 13, 14];
  const undisturbed: string[] = [];
  for (const seed of seeds) undisturbed.push((await (await ask(seed, 900)).read()).text);
  const streams = await Promise.all(seeds.map((seed) => ask(seed, 900)));
  const mover = (async () => {
    while (streams.some((stream) => !stream.isDone)) {
      const running = streams.filter((stream) => !stream.isDone);
      await Promise.all(running.map((stream) => move(stream.generation_id)));
      await Bun.sleep(20);
    }
  })();
  const answers = await Promise.all(streams.map((stream) => stream.read()));
  await mover;
  for (const [i, answer] of answers.entries()) {
    expect(answer.problems).toEqual([]);
    expect(answer.text).toBe(undisturbed[i] ?? "");
  }
  expect(answers.reduce((sum, { workers }) => sum + workers.length - 1, 0)).toBeGreaterThan(0);
});

test("what cannot be moved is refused with the reason, and nothing changes", async () => {
  const stream = await ask(3, 900);
  await stream.until(10);
  const code = async (id: string, body: object = {}) => Object((await move(id, body)).body).error?.code;
  expect(await code("0".repeat(32))).toBe("not_found");
  expect(await code("nonsense")).toBe("invalid_request");
  expect(await code(stream.generation_id, { worker_id: "w-00000000000000ff" })).toBe("not_found");
  expect(await code(stream.generation_id, { worker_id: stream.worker_id })).toBe("state_conflict");
  const answer = await stream.read();
  expect(answer.problems).toEqual([]);
  expect(answer.workers).toHaveLength(1);
  await cluster.endedGeneration(stream.generation_id);
  expect(await code(stream.generation_id)).toBe("state_conflict");
  expect(await migrationsOf(stream.generation_id)).toEqual([]);
});

test("a worker that is told to end lets its streams go first", async () => {
  const undisturbed = (await (await ask(21, 900)).read()).text;
  const streams = await Promise.all([21, 21, 21, 21].map((seed) => ask(seed, 900)));
  const answers = Promise.all(streams.map((stream) => stream.read()));
  const victim = cluster.workers[1];
  const [worker] = (await cluster.adminWorkers()).filter((w) => w.url === victim?.url);
  const began = performance.now();
  const drained = sllm("drain", worker?.worker_id ?? "");
  for (const answer of await answers) {
    expect(answer.problems).toEqual([]);
    expect(answer.text).toBe(undisturbed);
  }
  expect(await drained).toMatchObject({ status: 0, out: `${worker?.worker_id} is gone.\n` });
  expect(performance.now() - began).toBeLessThan(10_000);
  await cluster.startWorker(1);
  await cluster.workersReady();
});
