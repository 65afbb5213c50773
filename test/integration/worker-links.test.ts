/** Loads that share a disk: they read one after the other, hear their place, and their traces tell it afterwards. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import path from "node:path";
import type { LoadEvent } from "../../schema/cluster/instances.ts";
import { convertGguf } from "../../worker/checkpoints/import.ts";
import { makeModel } from "../models/make-model.ts";
import { WorkerHost } from "../support/worker-host.ts";

let host: WorkerHost;
const digests: string[] = [];
beforeAll(async () => {
  host = await WorkerHost.start({ echo_token_us: 0, variables: { SLLM_WORKER_DISK_LOADS: "1" } });
  for (const seed of [1, 2, 3]) {
    const source = path.join(host.folder, `model-${seed}.gguf`);
    await makeModel({ out: source, architecture: "llama", size_bytes: 64_000_000, type: "f16", seed });
    digests.push((await convertGguf({ source, store_dir: host.store })).digest);
  }
}, 120_000);
afterAll(() => host?.close(), 60_000);

/** All events of a load. */
async function events(checkpoint: string): Promise<LoadEvent[]> {
  const found: LoadEvent[] = [];
  const request = host.loadRequest(checkpoint);
  for await (const event of host.client.load(host.address, request, new AbortController().signal)) {
    found.push(event);
  }
  return found;
}

test("loads of one disk wait for their turn in order, and none reads beside another", async () => {
  const all = await Promise.all(digests.map(events));
  for (const one of all) expect(one.at(-1)).toMatchObject({ type: "ready" });
  const places = all
    .flat()
    .flatMap((event) =>
      event.type === "progress" && event.waiting_for !== undefined ? [event.waiting_for] : [],
    );
  expect(places.length).toBeGreaterThan(0);
  for (const { link } of places) expect(link).toBe("disk");
  const traces = await host.client.loadTraces(host.address, { limit: 10 });
  expect(traces).toHaveLength(3);
  const reads = traces
    .map(({ started_at, stages }) => {
      const read = stages.find((stage) => stage.stage === "read");
      const begin = Date.parse(started_at);
      return { from: begin + (read?.start_ms ?? 0), to: begin + (read?.end_ms ?? 0) };
    })
    .sort((a, b) => a.from - b.from);
  // Dates have whole milliseconds, hence the slack.
  for (const [i, read] of reads.slice(1).entries())
    expect(read.from).toBeGreaterThan((reads[i]?.to ?? 0) - 2);
  expect(
    traces.filter((t) => t.critical_path.some((part) => part.stage === "link_wait" && part.ms > 1)).length,
  ).toBeGreaterThan(0);
}, 60_000);
