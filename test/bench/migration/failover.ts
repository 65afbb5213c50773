/** An engine that is killed under a stream, and what of the stream's pause was detection and what prefill. */
import type { TestCluster } from "../../support/cluster.ts";
import { eventually } from "../../support/eventually.ts";
import type { Reading } from "./reading.ts";

/** What a stream waits for whose engine is killed, in milliseconds. */
export interface Failover {
  readonly pause_ms: number;
  /** Until the gateway says in its log that the instance is dead; null where it has not. */
  readonly detection_ms: number | null;
  /** From the slot at the other engine to its first token there; null where nothing of that was written down. */
  readonly prefill_ms: number | null;
}

/** Tokens after the kill within which its pause has passed. */
const tokensAfter = 3;

/** Kills the engine under a stream that is about to end; resolves when another one has gone on with it to its end. */
export async function killUnder(cluster: TestCluster, reading: Reading): Promise<Failover> {
  const { stream } = reading;
  const pid = await pidUnder(cluster, stream.worker_id);
  const began_ms = performance.now();
  const killed_ms = performance.timeOrigin + began_ms;
  process.kill(pid, "SIGKILL");
  const before = stream.lastIndex;
  await eventually("it goes on elsewhere", () => stream.lastIndex > before + tokensAfter, 120_000);
  const pause_ms = Math.max(...stream.gapsSince(began_ms).map(({ ms }) => ms));
  const detection_ms = failureSeen_ms(cluster, killed_ms);
  await reading.until(Number.POSITIVE_INFINITY);
  return { pause_ms, detection_ms, prefill_ms: await prefillOf(cluster, stream.generation_id) };
}

async function pidUnder(cluster: TestCluster, worker_id: string): Promise<number> {
  const statuses = await Promise.all(cluster.workers.map((_, i) => cluster.workerStatus(i)));
  const status = statuses.find((one) => one.worker_id === worker_id);
  const pid = status?.instances.find((one) => one.pid !== null)?.pid;
  if (pid == null) throw new Error("the stream's engine has no process");
  return pid;
}

function failureSeen_ms(cluster: TestCluster, killed_ms: number): number | null {
  const lines = cluster.gateway.log().split("\n");
  const failures = lines.filter((line) => line.includes('"event":"instance_failed"'));
  // The log tells whole milliseconds.
  const seen = failures
    .map((line) => Date.parse(JSON.parse(line).at))
    .filter((at_ms) => at_ms >= killed_ms - 1);
  return seen.length === 0 ? null : Math.max(0, Math.min(...seen) - killed_ms);
}

/** At the engine where it ended. */
async function prefillOf(cluster: TestCluster, generation_id: string): Promise<number | null> {
  const row = await eventually("the end is written", async () => {
    const found = await cluster.adminGeneration(generation_id);
    return found.finished_at === null ? null : found;
  });
  return row.timeline_ms?.prefill ?? null;
}
