/** The move of one stream against workers that answer as a test says, with the row it leaves behind. */
import { expect, test } from "bun:test";
import type { HandOverResponse, MoveEvent } from "../../../schema/cluster/moves.ts";
import type { InstanceRow, MigrationRow } from "../../../schema/db/tables.ts";
import { SllmError } from "../../../schema/error.ts";
import { limits } from "../../../schema/limits.ts";
import { ManualClock } from "../../../test/support/manual-clock.ts";
import type { EpochClaim, MigrationMove } from "../../ports.ts";
import { newMigration } from "./migration.ts";
import { StreamMove, type StreamMoveDeps } from "./stream-move.ts";

const generation_id = "0123456789abcdef0123456789abcdef";
const instanceAt = (n: number) =>
  ({
    instance_id: `i-000000000000000${n}`,
    worker_id: `w-000000000000000${n}`,
    model_id: "m",
  }) as InstanceRow;
const row = {
  migration_id: "m-1",
  generation_id,
  model_id: "m",
  state: "planned",
  reason: "a test",
} as MigrationRow;
const progress = { rounds: 2, tokens: 40, bytes: 0, gap_tokens: 1 };
const response = (outcome: HandOverResponse["outcome"]): HandOverResponse => ({
  ...{ outcome, completion_tokens: 30, gap_tokens: 1, handed_over_ms: 5 },
  error: outcome === "moved" ? null : { code: "worker_unavailable", message: "no answer" },
});
const silent = () => Promise.reject(new SllmError("worker_unavailable", "no answer"));

/** Everything that is asked of store and workers, in order, and the answers of the destination and the source. */
class World {
  readonly calls: string[] = [];
  readonly written: MigrationMove[] = [];
  events: readonly MoveEvent[] = [
    { type: "round", ...progress, rounds: 1, round_tokens: 40, round_ms: 10 },
    { type: "round", ...progress, round_tokens: 2, round_ms: 10 },
    { type: "ready", ...progress },
  ];
  epoch = 3;
  handOver: () => Promise<HandOverResponse> = () => Promise.resolve(response("moved"));
  find: () => Promise<{ epoch: number } | null> = () => Promise.resolve(null);
  won = true;
  readonly clock = new ManualClock();

  async run(destination = Promise.resolve(instanceAt(2))) {
    const move = new StreamMove(this.#deps(), newMigration(this.epoch), {
      ...{ row, generation: { generation_id, owner: "g-1" }, source: instanceAt(1), destination },
      ...{ with_kv: false, signal: new AbortController().signal, onComputed: () => this.calls.push("round") },
      onSentKv: (bytes) => this.calls.push(`kv ${bytes}`),
    });
    const { state, error } = await move.run();
    return { state, code: error?.code ?? null };
  }

  #deps(): StreamMoveDeps {
    const note = (text: string) => this.calls.push(text);
    const { events } = this;
    const claim = (wanted: EpochClaim) => {
      note(`claim ${wanted.epoch} at ${wanted.at?.worker_id}`);
      if (this.won) this.epoch = wanted.epoch;
      return Promise.resolve({
        won: this.won,
        row: { epoch: this.epoch + (this.won ? 0 : 4), finished_at: null },
      });
    };
    const deps = {
      store: {
        moveMigration: (move: MigrationMove) => {
          this.written.push(move);
          return Promise.resolve(true);
        },
        getGeneration: () => Promise.resolve(null),
        claimGeneration: claim,
      },
      workers: {
        async *moveGeneration() {
          note("move");
          yield* events;
        },
        handOver: () => {
          note("hand over");
          return this.handOver();
        },
        findGeneration: () => {
          note("find");
          return this.find();
        },
        cancel: (_: unknown, __: unknown, query: { epoch: number }) => {
          note(`fence ${query.epoch}`);
          return Promise.resolve({ cancelled: false });
        },
        goOn: (_: unknown, __: unknown, { epoch }: { epoch: number }) => {
          note(`go on ${epoch}`);
          return Promise.resolve();
        },
      },
      streams: { handOver: () => note("tell"), handOverEnded: () => note("tell the end") },
      addressOf: ({ worker_id }: InstanceRow) => ({ worker_id, url: "http://127.0.0.1:1", incarnation: "0" }),
      // What it pauses for between two questions is no matter here.
      clock: Object.assign(this.clock, { sleep: () => Promise.resolve() }),
      log: { info: () => undefined, warn: () => undefined, error: () => undefined },
      ...{ gateway_id: "g-1", settings: { gap_tokens: 4, rounds: 8 } },
    };
    // Rows and answers have only what a move looks at.
    return deps as unknown as StreamMoveDeps;
  }
}

test("an undisturbed move asks for everything once, and its row takes every step", async () => {
  const world = new World();
  expect(await world.run()).toEqual({ state: "finished", code: null });
  expect(world.calls).toEqual(["move", "round", "claim 4 at w-0000000000000002", "tell", "hand over"]);
  expect(world.written.map(({ to }) => to)).toEqual(["loading", "copying", "handing_over", "finished"]);
  expect(world.written.at(-1)).toMatchObject({ rounds: 2, tokens: 40, to_instance_id: "i-0000000000000002" });
});

test("the row of a move tells that the KV cache was sent, which teaches what the network does and nothing of prompts", async () => {
  const world = new World();
  const bytes = 5_000_000;
  world.events = [
    { type: "kv", bytes, kv_tokens: 40, kv_ms: 20 },
    { type: "round", ...progress, rounds: 1, bytes, round_tokens: 42, round_ms: 5 },
    { type: "ready", ...progress, bytes },
  ];
  expect(await world.run()).toEqual({ state: "finished", code: null });
  expect(world.calls.slice(0, 2)).toEqual(["move", `kv ${bytes}`]);
  expect(world.calls).not.toContain("round");
  expect(world.written.at(-1)).toMatchObject({ method: "kv_transfer", bytes, timings_ms: { kv: 20 } });
});

test("the row of a move whose step takes long is written all the while, so that nobody takes the move over", async () => {
  const world = new World();
  const loaded = Promise.withResolvers<InstanceRow>();
  const running = world.run(loaded.promise);
  for (let waited_ms = 0; waited_ms < 2 * limits.move_silence_ms; waited_ms += limits.move_note_ms) {
    const before = world.written.length;
    await world.clock.advance(limits.move_note_ms);
    expect(world.written.length).toBeGreaterThan(before);
    expect(world.written.at(-1)?.to).toBe("loading");
  }
  loaded.resolve(instanceAt(2));
  expect((await running).state).toBe("finished");
  const { length } = world.written;
  await world.clock.advance(2 * limits.move_note_ms);
  expect(world.written.length).toBe(length);
});

test("where nobody knows what became of the hand-over, it is as the destination says", async () => {
  const world = new World();
  world.handOver = silent;
  world.find = () => Promise.resolve({ epoch: 4 });
  expect(await world.run()).toEqual({ state: "finished", code: null });
  expect(world.calls.slice(-2)).toEqual(["hand over", "find"]);
});

test("a destination that has it not, or is not heard, is fenced before the source goes on", async () => {
  const back = ["claim 5 at w-0000000000000001", "fence 5", "go on 5", "tell the end"];
  for (const find of [() => Promise.resolve({ epoch: 3 }), silent]) {
    const world = new World();
    world.handOver = () => Promise.resolve(response("unknown"));
    world.find = find;
    expect(await world.run()).toEqual({ state: "failed", code: "worker_unavailable" });
    expect(world.calls.slice(-4)).toEqual(back);
    expect(world.written.at(-1)).toMatchObject({ to: "failed", epoch: 5 });
  }
});

test("before the hand-over nothing but the row tells of a move that failed", async () => {
  const lost = new World();
  lost.won = false;
  expect(await lost.run()).toEqual({ state: "failed", code: "stale_generation" });
  const broken = new World();
  broken.events = [{ type: "round", ...progress, round_tokens: 40, round_ms: 10 }];
  expect(await broken.run()).toEqual({ state: "failed", code: "worker_unavailable" });
  const nowhere = new World();
  const none = Promise.reject(new SllmError("insufficient_memory", "no room"));
  none.catch(() => undefined);
  expect(await nowhere.run(none)).toEqual({ state: "failed", code: "insufficient_memory" });
  for (const world of [lost, broken, nowhere]) {
    expect(world.calls.some((call) => call.startsWith("hand over") || call.startsWith("go on"))).toBe(false);
    expect(world.written.at(-1)).toMatchObject({ to: "failed" });
  }
});

test("a generation that ends during the rounds drops its move", async () => {
  const world = new World();
  world.events = [{ type: "ended" }];
  expect(await world.run()).toEqual({ state: "dropped", code: null });
});
