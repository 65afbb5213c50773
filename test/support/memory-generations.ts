/** The part of the store in memory that is about generations: their rows, records, output, keys and migrations. */
import type {
  BeginResult,
  EpochClaim,
  MigrationMove,
  NewGeneration,
  NewMigration,
  NewResumable,
  StateStore,
  StoredGeneration,
  TokenBatch,
} from "../../gateway/ports.ts";
import { assertStep } from "../../gateway/store/migrations.ts";
import { storableMessage } from "../../gateway/store/text.ts";
import type { TokensEvent } from "../../schema/cluster/generate.ts";
import type { GenerationRecordRow, GenerationRow, MigrationRow } from "../../schema/db/tables.ts";

type Mutable<T> = { -readonly [K in keyof T]: T[K] };
type Note = (id: string, from: string | null, to: string, reason: string) => void;

export function newGenerationRow(begun: NewGeneration): Mutable<GenerationRow> {
  const { generation_id, model_id, created_at_ms, owner = null, decisions = [] } = begun;
  return {
    generation_id,
    model_id,
    state: "queued",
    epoch: 1,
    owner,
    worker_id: null,
    instance_id: null,
    cold_start: false,
    prompt_tokens: null,
    completion_tokens: null,
    finish_reason: null,
    error_code: null,
    error_message: null,
    timeline_ms: null,
    decisions: decisions.length === 0 ? null : [...decisions],
    created_at: new Date(created_at_ms),
    finished_at: null,
  };
}

export class MemoryRecords {
  readonly #rows: Map<string, Mutable<GenerationRow>>;
  readonly #note: Note;
  readonly #records = new Map<string, { record: Mutable<GenerationRecordRow>; events: TokensEvent[] }>();
  readonly #keys = new Map<string, { generation_id: string; body_digest: string }>();

  constructor(rows: Map<string, Mutable<GenerationRow>>, note: Note) {
    this.#rows = rows;
    this.#note = note;
  }

  begin(request: NewResumable): BeginResult {
    const { generation_id, tenant, resume_ms, settings, idempotency } = request;
    const taken = idempotency === null ? null : this.key(tenant, idempotency.key);
    if (taken !== null) return { begun: false, ...taken };
    if (this.#rows.has(generation_id)) return { begun: true };
    this.#rows.set(generation_id, newGenerationRow(request));
    this.#note(generation_id, null, "queued", "arrived");
    const record = { generation_id, tenant, resume_ms, settings, prompt: null, hops: [], done: null };
    this.#records.set(generation_id, { record, events: [] });
    if (idempotency !== null) {
      this.#keys.set(`${tenant}\n${idempotency.key}`, {
        generation_id,
        body_digest: idempotency.body_digest,
      });
    }
    return { begun: true };
  }

  claim({ seen_epoch, epoch, owner, at, ...begun }: EpochClaim): { won: boolean; row: GenerationRow } {
    const row = this.#rows.get(begun.generation_id);
    if (row === undefined) {
      const claimed = { ...newGenerationRow({ ...begun, owner }), ...at, state: "running" as const };
      claimed.epoch = epoch;
      this.#rows.set(begun.generation_id, claimed);
      return { won: true, row: { ...claimed } };
    }
    const won = row.epoch === seen_epoch && row.finished_at === null;
    if (won) Object.assign(row, { epoch, owner, ...at });
    return { won, row: { ...row } };
  }

  append(batch: TokenBatch): boolean {
    const { generation_id, epoch, worker_id, instance_id, hops, prompt, events, done } = batch;
    const row = this.#rows.get(generation_id);
    const kept = this.#records.get(generation_id);
    if (row === undefined || row.epoch !== epoch || row.finished_at !== null) return false;
    Object.assign(row, { worker_id, instance_id, state: row.state === "queued" ? "running" : row.state });
    if (kept === undefined) return true;
    const { record } = kept;
    record.hops = [...hops];
    record.prompt = prompt === null ? record.prompt : [...prompt];
    record.done = done ?? record.done;
    const known = kept.events.some((event) => event.first_index === events[0]?.first_index);
    if (!known) kept.events.push(...events);
    return true;
  }

  stored(generation_id: string): StoredGeneration | null {
    const row = this.#rows.get(generation_id);
    const kept = this.#records.get(generation_id);
    if (row === undefined || kept === undefined) return null;
    return { row: { ...row }, record: { ...kept.record }, events: [...kept.events] };
  }

  key(tenant: string, key: string): { generation_id: string; body_digest: string } | null {
    return this.#keys.get(`${tenant}\n${key}`) ?? null;
  }

  unfinished(alive: readonly string[], limit: number): Awaited<ReturnType<StateStore["unfinishedOfOthers"]>> {
    return [...this.#rows.values()]
      .filter(({ finished_at, owner }) => finished_at === null && owner !== null && !alive.includes(owner))
      .sort((a, b) => a.created_at.getTime() - b.created_at.getTime())
      .slice(0, limit)
      .map((row) => {
        const record = this.#records.get(row.generation_id)?.record;
        const { tenant = "", resume_ms = null } = record ?? {};
        return { row: { ...row }, record: record === undefined ? null : { tenant, resume_ms } };
      });
  }

  remove(generation_id: string): void {
    this.#records.delete(generation_id);
    for (const [key, kept] of this.#keys) if (kept.generation_id === generation_id) this.#keys.delete(key);
  }

  /** How many records of generations went that ended before. */
  forget(before: Date, limit: number): number {
    const old = [...this.#records.keys()].filter((id) => {
      const at = this.#rows.get(id)?.finished_at;
      return at !== null && at !== undefined && at < before;
    });
    for (const id of old.slice(0, limit)) this.remove(id);
    return Math.min(old.length, limit);
  }
}

const ends = ["finished", "dropped", "failed"];

export class MemoryMigrations {
  readonly #rows = new Map<string, Mutable<MigrationRow>>();
  readonly #now: () => Date;
  readonly #note: Note;

  constructor(now: () => Date, note: Note) {
    this.#now = now;
    this.#note = note;
  }

  create(planned: NewMigration): MigrationRow | null {
    const { generation_id, migration_id, reason } = planned;
    if (planned.from_worker_id === planned.to_worker_id) throw new Error("a stream moves elsewhere");
    if (this.list({ live: true, generation_id, limit: 1 }).length > 0) return null;
    const row: MigrationRow = {
      ...planned,
      state: "planned",
      epoch: null,
      method: null,
      rounds: 0,
      tokens: 0,
      bytes: 0,
      timings_ms: null,
      error_code: null,
      error_message: null,
      created_at: this.#now(),
      updated_at: this.#now(),
      ended_at: null,
    };
    this.#rows.set(migration_id, row);
    this.#note(migration_id, null, "planned", reason);
    return { ...row };
  }

  move(move: MigrationMove): boolean {
    assertStep(move);
    const { migration_id, from, to, reason, error, ...known } = move;
    const row = this.#rows.get(migration_id);
    if (row === undefined || !from.includes(row.state)) return false;
    if (row.state !== to) this.#note(migration_id, row.state, to, reason);
    Object.assign(row, known, { state: to, updated_at: this.#now() });
    if (error !== undefined) {
      row.error_code = error.code;
      row.error_message = storableMessage(error.message);
    }
    row.ended_at = ends.includes(to) ? this.#now() : null;
    return true;
  }

  list({ live, generation_id, limit }: Parameters<StateStore["listMigrations"]>[0]): MigrationRow[] {
    return [...this.#rows.values()]
      .filter((row) => live !== true || row.ended_at === null)
      .filter((row) => generation_id === undefined || row.generation_id === generation_id)
      .toReversed()
      .slice(0, limit)
      .map((row) => ({ ...row }));
  }

  forget(before: Date, limit: number): number {
    const old = [...this.#rows.values()].filter(({ ended_at }) => ended_at !== null && ended_at < before);
    for (const { migration_id } of old.slice(0, limit)) this.#rows.delete(migration_id);
    return Math.min(old.length, limit);
  }
}
