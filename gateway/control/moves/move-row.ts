/** The row of one move, which follows what happens: every step with its timings, and progress now and then. */
import type { HandOverResponse } from "../../../schema/cluster/moves.ts";
import type { MigrationRow } from "../../../schema/db/tables.ts";
import { toSllmError } from "../../../schema/error.ts";
import type { InstanceId } from "../../../schema/ids.ts";
import { limits } from "../../../schema/limits.ts";
import { type MigrationMethod, type MigrationState, migrationMoves } from "../../../schema/vocab.ts";
import type { Clock, Log, MigrationMove, StateStore } from "../../ports.ts";
import type { Progress } from "./migration.ts";

export interface MoveRowDeps {
  readonly store: Pick<StateStore, "moveMigration">;
  readonly clock: Pick<Clock, "monotonicMs" | "after">;
  readonly log: Log;
}

export class MoveRow {
  readonly #deps: MoveRowDeps;
  readonly #row: MigrationRow;
  readonly #timings = new Map<string, number>();
  /** As it was written last. */
  #state: MigrationState;
  #written_ms: number;
  #to_instance_id: InstanceId | null = null;
  #method: MigrationMethod = "recompute";
  /** One write after the other: a late one must not undo what came after it. */
  #written: Promise<void> = Promise.resolve();

  constructor(deps: MoveRowDeps, row: MigrationRow) {
    this.#deps = deps;
    this.#row = row;
    this.#state = row.state;
    this.#written_ms = deps.clock.monotonicMs();
  }

  /** A step took so long, in all. */
  took(step: string, ms: number): void {
    this.#timings.set(step, (this.#timings.get(step) ?? 0) + ms);
  }

  arrivesAt(instance_id: InstanceId): void {
    this.#to_instance_id = instance_id;
  }

  /** Its KV cache has been sent. */
  sentKv(ms: number): void {
    this.#method = "kv_transfer";
    this.#timings.set("kv", ms);
  }

  /** What the destination computed before it was close for the first time, and how long that took. */
  computed(tokens: number, ms: number): void {
    this.#timings.set("first_round", ms);
    this.#timings.set("first_round_tokens", tokens);
  }

  handedOver({ handed_over_ms, gap_tokens }: HandOverResponse): void {
    this.#timings.set("handed_over", handed_over_ms);
    this.#timings.set("gap_tokens", gap_tokens);
  }

  /** Rounds come often; the row follows them once a second. */
  async noteProgress(progress: Progress): Promise<void> {
    const silent_ms = this.#deps.clock.monotonicMs() - this.#written_ms;
    if (silent_ms >= limits.move_note_ms) await this.note(progress, {});
  }

  /**
   * While a step takes its time, a long load or round, the row says that somebody sees to it: one that is silent is taken
   * over. Returns its end.
   */
  beat(progress: () => Progress): () => void {
    const { clock } = this.#deps;
    let cancel = () => {};
    const again = () => {
      cancel = clock.after(limits.move_note_ms, () => {
        void this.noteProgress(progress());
        again();
      });
    };
    again();
    return () => cancel();
  }

  /** A database that is away must not hold a stream up: what cannot be written is made up for with the next step. */
  note(progress: Progress, step: Step): Promise<void> {
    this.#written_ms = this.#deps.clock.monotonicMs();
    this.#written = this.#written.then(() => this.#write(progress, step));
    return this.#written;
  }

  async #write(progress: Progress, asked: Step): Promise<void> {
    const { store, log } = this.#deps;
    const { migration_id, generation_id, reason } = this.#row;
    const step = { ...asked, to: asked.to ?? this.#state };
    const { rounds, tokens, bytes } = progress;
    try {
      for (const to of between(this.#state, step.to)) {
        await store.moveMigration({ migration_id, from: [this.#state], to, reason });
        this.#state = to;
      }
      await store.moveMigration({
        ...{ migration_id, from: [this.#state], ...step, reason: step.error?.message ?? reason },
        ...(this.#to_instance_id === null ? {} : { to_instance_id: this.#to_instance_id }),
        ...{ method: this.#method, rounds, tokens, bytes, timings_ms: this.#tenths() },
      });
      this.#state = step.to;
    } catch (error) {
      log.warn("move_not_written", { migration_id, generation_id, reason: toSllmError(error).message });
    }
  }

  #tenths(): Record<string, number> {
    const all = [...this.#timings].map(([name, ms]) => [name, Math.round(ms * 10) / 10] as const);
    return Object.fromEntries(all);
  }
}

/** What is told of a move; without a state it is where it was. */
type Step = Partial<Pick<MigrationMove, "to" | "epoch" | "error">>;

const way: readonly MigrationState[] = ["planned", "loading", "copying", "handing_over"];

/** States on the way to one that cannot follow at once. */
function between(from: MigrationState, to: MigrationState): readonly MigrationState[] {
  const next: readonly MigrationState[] = migrationMoves[from];
  if (from === to || next.includes(to)) return [];
  const begin = way.indexOf(from) + 1;
  const end = way.indexOf(to);
  return way.slice(begin, end < 0 ? way.length : end);
}
