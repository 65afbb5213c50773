/** A running model moves away, with its stream, because another one fits nowhere else. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { adminMigrationList } from "../../schema/api/migrations.ts";
import { openStream } from "../support/chat-streams.ts";
import { TestCluster } from "../support/cluster.ts";
import { eventually } from "../support/eventually.ts";

setDefaultTimeout(120_000);

const MiB = 1024 ** 2;
let cluster: TestCluster;
beforeAll(async () => {
  cluster = await TestCluster.start({
    workers: 1,
    // Answers that take their time, whatever the machine does.
    worker: { SLLM_ENGINE_KIND: "echo", SLLM_ECHO_TOKEN_US: "20000" },
    // The first has room for the large model, or the small one; the second for the small one alone.
    workerVariables: (index) => ({ SLLM_WORKER_MEMORY_BYTES: String((index === 0 ? 300 : 180) * MiB) }),
  });
  const small = { context_tokens: 2_048, slots: 2, keep_alive_ms: 600_000 };
  await cluster.deploy("small", undefined, small);
  await cluster.deploy("large", undefined, { context_tokens: 2_048, slots: 250 });
}, 120_000);
afterAll(() => cluster?.close(), 60_000);

test("a running model moves away to make room for another, and its stream goes on", async () => {
  const ask = (model: string, max_tokens: number) =>
    openStream(cluster.url, {
      model,
      messages: [{ role: "user", content: "To be, or not to be" }],
      ...{ seed: 5, temperature: 0.8, max_tokens, ignore_eos: true },
    });
  const undisturbed = await (await ask("small", 250)).read();
  await cluster.startWorker(1);
  await eventually("both workers are there", async () => (await cluster.adminWorkers()).length === 2);
  const streams = await Promise.all([ask("small", 250), ask("small", 250)]);
  const answers = Promise.all(streams.map((stream) => stream.read()));
  const large = await (await ask("large", 5)).read();
  expect(large.problems).toEqual([]);
  for (const answer of await answers) {
    expect(answer.problems).toEqual([]);
    expect(answer.text).toBe(undisturbed.text);
  }
  const response = await fetch(`${cluster.url}/admin/v1/migrations`);
  const { data } = adminMigrationList.parse(await response.json());
  expect(data.map(({ state, reason }) => ({ state, reason }))).toEqual(
    streams.map(() => ({ state: "finished", reason: "makes room for another model" })),
  );
  const places = new Map((await cluster.adminInstances()).map((i) => [i.model_id, i.worker_id]));
  expect(places.get("small")).toBe(data[0]?.to_worker_id ?? "");
  expect(places.get("large")).toBe(data[0]?.from_worker_id ?? "");
});
