/**
 * Moves of streams: of single ones, of instances with all of theirs, and away from workers that drain. The leader also
 * ends those whose gateway is gone, from their rows. A stream has one move at a time, which the store sees to.
 */
import type { RunningGeneration } from "../../../schema/cluster/moves.ts";
import type { InstanceRow, MigrationRow } from "../../../schema/db/tables.ts";
import { SllmError, toSllmError } from "../../../schema/error.ts";
import type { GenerationId, WorkerId } from "../../../schema/ids.ts";
import { toHex } from "../../../schema/ids.ts";
import { limits } from "../../../schema/limits.ts";
import type { MigrationMethod } from "../../../schema/vocab.ts";
import type { Fleet } from "../../placement/fleet.ts";
import type { Random, StateStore, WorkerClient } from "../../ports.ts";
import type { DestinationFinder, FoundDestination } from "./destinations.ts";
import { foundMigration, hasEnded, type Migration, newMigration } from "./migration.ts";
import { StreamMove, type StreamMoveDeps } from "./stream-move.ts";

export interface MigrationsDeps extends Omit<StreamMoveDeps, "addressOf"> {
  readonly fleet: Fleet;
  readonly store: StreamMoveDeps["store"] & Pick<StateStore, "createMigration" | "listMigrations">;
  readonly workers: StreamMoveDeps["workers"] & Pick<WorkerClient, "listGenerations">;
  readonly destinations: DestinationFinder;
  readonly random: Random;
  /** Told what a destination took to compute a stream's tokens. */
  readonly onComputed: (to: InstanceRow, tokens: number, ms: number) => void;
  /** Told how fast a KV cache left a worker. */
  readonly onSentKv: (from: InstanceRow, bytes: number, ms: number) => void;
  /** Whether sending the KV cache of so many tokens is expected to be faster than computing them there. */
  readonly prefersKv: (from: InstanceRow, to: InstanceRow, tokens: number) => boolean;
}

/** A stream that shall move, and where it is. */
interface Leaving {
  readonly generation: RunningGeneration;
  readonly source: InstanceRow;
}

/** Says where a stream goes. */
export type FindDestination = (stream: Pick<RunningGeneration, "adapter">) => Promise<FoundDestination>;

type SeenRows = Map<string, { readonly written_ms: number; readonly since_ms: number }>;

export class Migrations {
  readonly #deps: MigrationsDeps;
  readonly #stopping = new AbortController();
  /** Rows of moves that run here, in any state. */
  readonly #running = new Map<string, Promise<Migration>>();
  /** Moves of other gateways: when their rows were written last, and since when that is known here. */
  #seen: SeenRows = new Map();

  constructor(deps: MigrationsDeps) {
    this.#deps = deps;
  }

  /**
   * Moves one stream, to a worker that is named or to where it would be best. Resolves with its row when it has begun.
   * Errors: `not_found` when the generation is unknown, `state_conflict` when it does not run, is on its way already,
   * or would move to where it is; what a destination cannot be had for.
   */
  async moveStream(
    generation_id: GenerationId,
    { to, method }: { readonly to: WorkerId | null; readonly method: MigrationMethod | null },
    reason: string,
  ): Promise<MigrationRow> {
    const { fleet, destinations } = this.#deps;
    await fleet.known();
    const leaving = await this.#find(generation_id);
    if (leaving.source.worker_id === to) {
      throw new SllmError("state_conflict", "The generation runs on that worker already.");
    }
    const found = await destinations.find(leaving.source, to, leaving.generation.adapter);
    const { row } = await this.#begin(leaving, found, reason, method);
    return row;
  }

  /**
   * Moves what runs on an instance, as often as something is left there. True when nothing is.
   */
  async moveAll(
    source: InstanceRow,
    find: FindDestination,
    reason: string,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { clock } = this.#deps;
    let failures = 0;
    while (!signal.aborted && failures < limits.move_attempts) {
      const generations = await this.#running_on(source);
      if (generations.length === 0) return true;
      const ready = generations.filter((g) => !g.is_moving && g.prompt_tokens !== null);
      const outcomes = await this.#moveSome(source, ready, find, reason);
      if (outcomes.some((o) => o === "failed")) failures += 1;
      if (ready.length === 0) await clock.sleep(limits.reconcile_ms, signal);
    }
    return false;
  }

  /** As many at once as do not slow each other down. */
  async #moveSome(
    source: InstanceRow,
    generations: readonly RunningGeneration[],
    find: FindDestination,
    reason: string,
  ): Promise<("ended" | "failed")[]> {
    const left = [...generations];
    const outcomes: ("ended" | "failed")[] = [];
    const take = async (): Promise<void> => {
      for (let generation = left.shift(); generation !== undefined; generation = left.shift()) {
        outcomes.push(await this.#moveOne({ generation, source }, find, reason));
      }
    };
    await Promise.all(Array.from({ length: limits.moves_at_once }, take));
    return outcomes;
  }

  async #moveOne(leaving: Leaving, find: FindDestination, reason: string): Promise<"ended" | "failed"> {
    const { log } = this.#deps;
    try {
      const { outcome } = await this.#begin(leaving, await find(leaving.generation), reason);
      return (await outcome).state === "failed" ? "failed" : "ended";
    } catch (thrown) {
      const { code, message } = toSllmError(thrown);
      const { generation_id } = leaving.generation;
      log.warn("move_not_begun", { generation_id, code, reason: message });
      return "failed";
    }
  }

  /** Ends what a gateway that is gone has left half done. */
  async recover(): Promise<void> {
    const { store, clock } = this.#deps;
    const rows = await store.listMigrations({ live: true, limit: limits.listed_migrations });
    const now_ms = clock.monotonicMs();
    const seen: SeenRows = new Map();
    for (const row of rows) {
      if (this.#running.has(row.migration_id)) continue;
      const written_ms = row.updated_at.getTime();
      const before = this.#seen.get(row.migration_id);
      const since_ms = before?.written_ms === written_ms ? before.since_ms : now_ms;
      seen.set(row.migration_id, { written_ms, since_ms });
      if (now_ms - since_ms >= limits.move_silence_ms) this.#recover(row);
    }
    this.#seen = seen;
  }

  #recover(row: MigrationRow): void {
    const { fleet, log } = this.#deps;
    const source = fleet.instance(row.from_instance_id);
    const to = row.to_instance_id === null ? null : fleet.instance(row.to_instance_id);
    log.warn("move_taken_over", { migration_id: row.migration_id, state: row.state });
    const noDestination = new SllmError("worker_unavailable", "The destination is gone.");
    const migration = foundMigration(row.state, row.epoch);
    const options = {
      ...{ row, source: source ?? to, with_kv: false, signal: this.#stopping.signal },
      generation: { generation_id: row.generation_id, owner: null },
      destination: to === null ? Promise.reject(noDestination) : Promise.resolve(to),
      ...{ onComputed: () => undefined, onSentKv: () => undefined },
    };
    options.destination.catch(() => undefined);
    if (options.source === null) return void this.#writeEnd(row);
    const move = new StreamMove(this.#moveDeps(), migration, { ...options, source: options.source });
    this.#follow(row, hasEnded(migration) ? this.#writeEnd(row, migration) : move.run());
  }

  /** Both workers are gone: whoever reads the stream continues it from what it has. */
  async #writeEnd(row: MigrationRow, migration?: Migration): Promise<Migration> {
    const ended = migration ?? { ...newMigration(row.epoch ?? 1), state: "failed" as const };
    const error = ended.error ?? { code: "worker_unavailable" as const, message: "Both workers are gone." };
    const { migration_id, state } = row;
    await this.#deps.store.moveMigration({
      ...{ migration_id, from: [state], to: "failed", reason: error.message, error },
    });
    return ended;
  }

  /** Resolves when no move is under way here; those that copy are given up. */
  async close(): Promise<void> {
    this.#stopping.abort();
    await Promise.allSettled([...this.#running.values()]);
  }

  /** Moves under way here. */
  get count(): number {
    return this.#running.size;
  }

  /** Wherever it runs: rows of plain requests do not say. */
  async #find(generation_id: GenerationId): Promise<Leaving> {
    const { fleet, workers, store } = this.#deps;
    const addresses = fleet.snapshot.workers.filter(({ state }) => state === "ready" || state === "draining");
    const lists = await Promise.all(
      addresses.map(({ worker_id, url, incarnation }) =>
        workers.listGenerations({ worker_id, url, incarnation }).catch(() => []),
      ),
    );
    const found = lists.flat().filter((one) => one.generation_id === generation_id);
    const generation = found.toSorted((a, b) => b.epoch - a.epoch)[0];
    const source = generation === undefined ? null : fleet.instance(generation.instance_id);
    if (generation === undefined || source === null) {
      const row = await store.getGeneration(generation_id);
      if (row === null) throw new SllmError("not_found", `The generation '${generation_id}' is not known.`);
      const message = `The generation '${generation_id}' is not running: there is nothing to move.`;
      throw new SllmError("state_conflict", message);
    }
    if (generation.prompt_tokens === null) {
      throw new SllmError(
        "state_conflict",
        "The generation has not begun yet: its prompt is still waited for.",
      );
    }
    return { generation, source };
  }

  async #running_on(source: InstanceRow): Promise<readonly RunningGeneration[]> {
    const { fleet, workers } = this.#deps;
    const worker = fleet.addressOf(source);
    if (worker === null) return [];
    const all = await workers.listGenerations(worker);
    return all.filter(({ instance_id }) => instance_id === source.instance_id);
  }

  async #begin(
    { generation, source }: Leaving,
    { instance, ready }: FoundDestination,
    reason: string,
    method: MigrationMethod | null = null,
  ): Promise<{ row: MigrationRow; outcome: Promise<Migration> }> {
    const { store, random, gateway_id, fleet, onComputed, onSentKv, prefersKv } = this.#deps;
    const { generation_id, epoch, prompt_tokens, completion_tokens } = generation;
    const row = await store.createMigration({
      migration_id: `m-${toHex(random.bytes(8))}`,
      ...{ generation_id, model_id: source.model_id, owner: gateway_id, reason },
      ...{ from_worker_id: source.worker_id, from_instance_id: source.instance_id },
      ...{ to_worker_id: instance.worker_id, to_instance_id: instance.instance_id },
    });
    if (row === null) {
      throw new SllmError("state_conflict", `The generation '${generation_id}' is on its way already.`);
    }
    const tokens = (prompt_tokens ?? 0) + completion_tokens;
    const with_kv = method === null ? prefersKv(source, instance, tokens) : method === "kv_transfer";
    const use = fleet.acquire(instance.instance_id, () => undefined);
    const move = new StreamMove(this.#moveDeps(), newMigration(epoch), {
      ...{ row, generation, source, destination: ready, with_kv, signal: this.#stopping.signal },
      onComputed: (tokens, ms) => onComputed(instance, tokens, ms),
      onSentKv: (bytes, ms) => onSentKv(source, bytes, ms),
    });
    const outcome = this.#follow(
      row,
      move.run().finally(() => use.release()),
    );
    return { row, outcome };
  }

  #follow(row: MigrationRow, run: Promise<Migration>): Promise<Migration> {
    const { log, clock } = this.#deps;
    const { migration_id, generation_id, from_worker_id, to_worker_id } = row;
    const began_ms = clock.monotonicMs();
    const followed = run.finally(() => this.#running.delete(migration_id));
    this.#running.set(migration_id, followed);
    void followed.then(({ state, progress, error }) => {
      const took_ms = Math.round(clock.monotonicMs() - began_ms);
      const what = { migration_id, generation_id, from_worker_id, to_worker_id, took_ms, ...progress };
      log.info(`stream_move_${state}`, {
        ...what,
        code: error?.code ?? null,
        reason: error?.message ?? row.reason,
      });
    });
    followed.catch((error: unknown) => log.error("move_not_ended", { migration_id }, error));
    return followed;
  }

  #moveDeps(): StreamMoveDeps {
    const { fleet } = this.#deps;
    return { ...this.#deps, addressOf: (instance) => fleet.addressOf(instance) };
  }
}
