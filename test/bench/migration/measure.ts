/** Two workers, each on a processor of its own, with streams that stay and streams that move from one to the other. */
import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import path from "node:path";
import { adminEstimateList } from "../../../schema/api/admin.ts";
import { type AdminMigration, adminMigration, adminMigrationList } from "../../../schema/api/migrations.ts";
import type { MigrationMethod } from "../../../schema/vocab.ts";
import { makeModel } from "../../models/make-model.ts";
import { type Gap, OpenStream } from "../../support/chat-streams.ts";
import { TestCluster } from "../../support/cluster.ts";
import { eventually } from "../../support/eventually.ts";
import { withDatabase } from "../../support/postgres.ts";
import { type Failover, killUnder } from "./failover.ts";
import type { Measured, MeasuredMove } from "./measured.ts";
import { Reading } from "./reading.ts";

export interface MovesWish {
  readonly size_bytes: number;
  readonly moves: number;
  readonly failovers: number;
  /** Output tokens that a stream has when it moves, in turn. */
  readonly contexts: readonly number[];
  /** Streams that stay on each worker. */
  readonly beside: number;
}

/** Long enough to hold several times what a move takes. */
const undisturbed_ms = 15_000;
/** Tokens after the destination's first within which the pause of a move has passed. */
const tokensAfter = 3;
const askedEvery_ms = 1_000;
/** Of a stream whose engine is killed: as soon as the kill is seen it goes on to its end. */
const tokensAfterKill = 60;
const context_tokens = 2_048;
/** Whole words nearly all of them: a token that is part of a character has no event, and a gap of two tokens. */
const vocabulary_tokens = 8_192;
/** Of everything that moves. */
const moverSeed = 1_000_000;

/** With a database server: an embedded one would compute in the gateway, on the processors that are measured. */
export function measureMoves(wish: MovesWish, say: (text: string) => void): Promise<Measured> {
  return withDatabase((url) => measureWith({ SLLM_GATEWAY_DATABASE_URL: url }, wish, say));
}

async function measureWith(
  gateway: Readonly<Record<string, string>>,
  wish: MovesWish,
  say: (text: string) => void,
): Promise<Measured> {
  const folder = mkdtempSync(path.join(tmpdir(), "sllm-bench-moves-"));
  const source = path.join(folder, "model.gguf");
  await makeModel({
    ...{ architecture: "llama", size_bytes: wish.size_bytes, type: "q8_0", out: source, seed: 1 },
    vocabulary: vocabulary_tokens,
  });
  const cluster = await TestCluster.start({
    ...{ gateway, workers: 2 },
    workerCommands: (index) => ["taskset", "-c", String(index % availableParallelism()), process.execPath],
  });
  const bench = new MoveBench(cluster, wish, say);
  try {
    const settings = {
      ...{ deterministic: true, slots: 2 * wish.beside + 2, context_tokens },
      ...{ min_instances: 2, keep_alive_ms: 3_600_000 },
    };
    await cluster.deploy("bench", source, settings);
    await bench.bothReady();
    return await bench.run();
  } finally {
    await cluster.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

class MoveBench {
  readonly #cluster: TestCluster;
  readonly #wish: MovesWish;
  readonly #say: (text: string) => void;
  readonly #staying: Reading[] = [];
  readonly #read: Reading[] = [];
  #seed = 0;

  constructor(cluster: TestCluster, wish: MovesWish, say: (text: string) => void) {
    this.#cluster = cluster;
    this.#wish = wish;
    this.#say = say;
  }

  async bothReady(): Promise<void> {
    await eventually(
      "both instances are ready",
      async () =>
        (await this.#cluster.adminInstances()).filter(({ state }) => state === "ready").length === 2,
      120_000,
    );
  }

  async run(): Promise<Measured> {
    const { moves, failovers, contexts } = this.#wish;
    // All that move ask the same, so that what they were told can be compared, token by token.
    const reference = await this.#open(moverSeed);
    await reference.until(Math.max(...contexts) + 300);
    reference.stream.leave();
    await this.#fill();
    const movers = [await this.#open(), await this.#open()];
    await Promise.all([...this.#staying, ...movers].map((one) => one.until(16)));
    const quiet_since_ms = performance.now();
    await Bun.sleep(undisturbed_ms);
    const undisturbed = [...this.#staying, ...movers].map(({ stream }) =>
      msOf(stream.gapsSince(quiet_since_ms)),
    );
    this.#say(`undisturbed: ${undisturbed.flat().length} gaps`);
    for (const mover of movers) mover.stream.leave();

    const measured: MeasuredMove[] = [];
    const beside_ms = await this.#gapsDuring(async () => {
      for (let i = 0; i < moves; ) {
        // One stream moves at every length, to and fro; the next one by the other method.
        const method = (i / contexts.length) % 2 === 0 ? "recompute" : "kv_transfer";
        const mover = await this.#open(moverSeed);
        for (const context of contexts.slice(0, moves - i)) {
          await mover.until(context);
          const one = await this.#move(mover, context, method);
          if (one !== null) measured.push(one);
          if (one !== null) this.#say(textOf(one, i + 1));
          i++;
        }
        mover.stream.leave();
        await this.#refill();
      }
    }, this.#staying);
    const paused: Failover[] = [];
    for (let i = 0; i < failovers; i++)
      paused.push(await this.#failover(contexts[i % contexts.length] ?? 64));
    for (const one of this.#read) one.stream.leave();
    const { lost, doubled } = this.#compare(reference.stream);
    return {
      ...{ undisturbed, moves: measured, beside_ms, failovers: paused, line: await this.#learned() },
      ...{ lost, doubled },
    };
  }

  /** So many streams on each worker as shall stay there. */
  async #fill(): Promise<void> {
    for (let i = 0; i < 2 * this.#wish.beside; i++) this.#staying.push(await this.#open());
  }

  /** Streams that have come to the end of their context are followed by new ones. */
  async #refill(): Promise<void> {
    for (const [i, one] of this.#staying.entries()) {
      if (one.stream.isDone || one.stream.lastIndex > context_tokens - 400) {
        one.stream.leave();
        this.#staying[i] = await this.#open();
      }
    }
  }

  /** Streams whose text is shorter than it should be, or another, and those that were told something twice. */
  #compare(reference: OpenStream): { lost: number; doubled: number } {
    let [lost, doubled] = [0, 0];
    for (const { stream, seed } of this.#read) {
      for (const problem of stream.problems) {
        this.#say(problem);
        doubled += problem.includes("after token") ? 1 : 0;
      }
      if (seed !== moverSeed) continue;
      // The event of the end stands one beyond the last token.
      const at = Math.min(stream.lastIndex - (stream.isDone ? 1 : 0), reference.lastIndex);
      const [told, wanted] = [stream.textUpTo(at), reference.textUpTo(at)];
      if (told === null || wanted === null || told === wanted) continue;
      this.#say(`at token ${at}: ${told.length} characters instead of ${wanted.length}`);
      if (told.length > wanted.length) doubled += 1;
      else lost += 1;
    }
    return { lost, doubled };
  }

  async #open(seed = ++this.#seed, max_tokens = context_tokens - 100): Promise<Reading> {
    const stream = await OpenStream.open(this.#cluster.url, {
      model: "bench",
      messages: [{ role: "user", content: "Say anything at all, for as long as you can." }],
      ...{ seed, temperature: 0.8, max_tokens, ignore_eos: true },
    });
    const reading = new Reading(stream, seed);
    this.#read.push(reading);
    return reading;
  }

  async #move(mover: Reading, context: number, method: MigrationMethod): Promise<MeasuredMove | null> {
    const { stream } = mover;
    const began_ms = performance.now();
    const response = await this.#cluster.post(`/admin/v1/generations/${stream.generation_id}/move`, {
      method,
    });
    if (response.status !== 202) {
      this.#say(`not moved: ${await response.text()}`);
      return null;
    }
    const { migration_id } = adminMigration.parse(await response.json());
    const row = await this.#endOf(migration_id, stream.generation_id);
    await mover.until(stream.lastIndex + 1 + tokensAfter);
    const gaps = stream.gapsSince(began_ms);
    const changed = gaps.findLastIndex(({ from, to }) => from !== to);
    const watched = gaps.slice(0, changed + 1 + tokensAfter);
    const longest_gap_ms = Math.max(...msOf(watched));
    const longest = watched.findIndex(({ ms }) => ms === longest_gap_ms);
    return {
      row,
      context_tokens: context,
      pause_ms: gaps[changed]?.ms ?? 0,
      longest_gap_ms,
      longest_at: longest === changed ? "hand_over" : longest < changed ? "source" : "destination",
      watched_ms: (watched.at(-1)?.ended_ms ?? began_ms) - began_ms,
    };
  }

  /** Asks seldom: gateway and database compute on the processors that are measured. */
  async #endOf(migration_id: string, generation_id: string): Promise<AdminMigration> {
    const deadline_ms = performance.now() + 120_000;
    while (performance.now() < deadline_ms) {
      await Bun.sleep(askedEvery_ms);
      const row = (await this.#migrationsOf(generation_id)).find((m) => m.migration_id === migration_id);
      if (row !== undefined && row.ended_at !== null) return row;
    }
    throw new Error(`move ${migration_id} has not ended`);
  }

  /** The engine under a stream is killed when the stream is so long. */
  async #failover(context: number): Promise<Failover> {
    const mover = await this.#open(moverSeed, context + tokensAfterKill);
    await mover.until(context);
    const failover = await killUnder(this.#cluster, mover);
    this.#say(`failover at ${context} tokens: ${JSON.stringify(failover)}`);
    await this.bothReady();
    await this.#refill();
    return failover;
  }

  async #gapsDuring(what: () => Promise<unknown>, of: readonly Reading[]): Promise<number[]> {
    const began_ms = performance.now();
    const watched = [...of];
    await what();
    return watched.flatMap(({ stream }) => msOf(stream.gapsSince(began_ms)));
  }

  async #migrationsOf(generation_id: string): Promise<AdminMigration[]> {
    const response = await fetch(`${this.#cluster.url}/admin/v1/migrations?generation_id=${generation_id}`);
    return adminMigrationList.parse(await response.json()).data;
  }

  async #learned(): Promise<Measured["line"]> {
    const response = await fetch(`${this.#cluster.url}/admin/v1/estimates`);
    const { data } = adminEstimateList.parse(await response.json());
    const line = data.find(({ quantity, detail }) => quantity === "prefill" && detail === "move");
    const network = data.find(({ quantity, detail }) => quantity === "bandwidth" && detail === "network");
    return {
      ms_per_token: line?.value ?? null,
      error_p50: line?.error_p50 ?? null,
      error_p90: line?.error_p90 ?? null,
      network_bytes_per_ms: network?.value ?? null,
    };
  }
}

const msOf = (gaps: readonly Gap[]) => gaps.map(({ ms }) => ms);

function textOf(move: MeasuredMove, number: number): string {
  const { row, context_tokens, pause_ms, longest_gap_ms, longest_at } = move;
  const { state, rounds, timings_ms, error, method } = row;
  const what = `move ${number} at ${context_tokens} tokens: ${state} after ${rounds} rounds, ${method}`;
  const gaps = `pause ${Math.round(pause_ms)} ms, longest gap ${Math.round(longest_gap_ms)} ms (${longest_at})`;
  return `${what}, ${gaps}, ${JSON.stringify(timings_ms)} ${error?.message ?? ""}`;
}
