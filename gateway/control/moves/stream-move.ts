/** Carries one stream from worker to worker: does what migration.ts says is due, and writes every step down. */
import type { MoveEvent, RunningGeneration } from "../../../schema/cluster/moves.ts";
import { protocolVersion } from "../../../schema/cluster/protocol.ts";
import type { InstanceRow, MigrationRow } from "../../../schema/db/tables.ts";
import { SllmError, toSllmError, type WireError } from "../../../schema/error.ts";
import type { GatewayId } from "../../../schema/ids.ts";
import { limits } from "../../../schema/limits.ts";
import type { Clock, Log, StateStore, WorkerAddress, WorkerClient } from "../../ports.ts";
import type { LiveStreams } from "./live-streams.ts";
import {
  advance,
  dueIn,
  hasEnded,
  type Migration,
  type MigrationDue,
  type MigrationInput,
} from "./migration.ts";
import { MoveRow } from "./move-row.ts";
import { drainQuietly, orAborted } from "./waits.ts";

export interface StreamMoveDeps {
  readonly store: Pick<StateStore, "moveMigration" | "claimGeneration" | "getGeneration">;
  readonly workers: Pick<WorkerClient, "moveGeneration" | "handOver" | "goOn" | "findGeneration" | "cancel">;
  readonly streams: LiveStreams;
  /** Where an instance is now; null when its worker's process is gone. */
  readonly addressOf: (instance: InstanceRow) => WorkerAddress | null;
  readonly clock: Clock;
  readonly log: Log;
  readonly gateway_id: GatewayId;
  readonly settings: MoveSettings;
}

export interface MoveSettings {
  /** Tokens that may be missing at the destination when a stream is handed over. */
  readonly gap_tokens: number;
  /** Rounds after which a stream that does not get there stays where it is. */
  readonly rounds: number;
}

export interface StreamMoveOptions {
  readonly row: MigrationRow;
  readonly generation: Pick<RunningGeneration, "generation_id" | "owner">;
  readonly source: InstanceRow;
  /** The destination's instance when it takes streams in; rejects when it never does. */
  readonly destination: Promise<InstanceRow>;
  readonly with_kv: boolean;
  readonly signal: AbortSignal;
  /** Told what the destination took to compute all of it; not where it got the KV cache. */
  readonly onComputed: (tokens: number, ms: number) => void;
  /** Told how fast its KV cache went there. */
  readonly onSentKv: (bytes: number, ms: number) => void;
}

type StepOf<K extends MigrationDue["kind"]> = Extract<MigrationDue, { kind: K }>;

/** Asked so often whether the destination has it, before it counts as not to be reached. */
const asks = 3;

export class StreamMove {
  readonly #deps: StreamMoveDeps;
  readonly #options: StreamMoveOptions;
  readonly #copying = new AbortController();
  readonly #row: MoveRow;
  #migration: Migration;
  #to: InstanceRow | null = null;

  constructor(deps: StreamMoveDeps, migration: Migration, options: StreamMoveOptions) {
    this.#deps = deps;
    this.#migration = migration;
    this.#options = options;
    this.#row = new MoveRow(deps, options.row);
  }

  /** To its end, whatever that is. Never rejects. */
  async run(): Promise<Migration> {
    const { clock } = this.#deps;
    const endBeat = this.#row.beat(() => this.#migration.progress);
    while (!hasEnded(this.#migration)) {
      const due = dueIn(this.#migration);
      const began_ms = clock.monotonicMs();
      const input = await this.#do(due).catch((thrown: unknown): MigrationInput => {
        const { code, message } = toSllmError(thrown);
        if (code === "internal") this.#deps.log.error("move_failed", this.#names(), thrown);
        return { type: "given_up", error: { code, message } };
      });
      this.#row.took(due.kind, clock.monotonicMs() - began_ms);
      await this.#take(input);
    }
    endBeat();
    this.#copying.abort();
    return this.#migration;
  }

  async #take(input: MigrationInput): Promise<void> {
    const before = this.#migration;
    this.#migration = advance(before, input);
    await this.#write(before);
    if (this.#migration.state === "failed" && before.won_epoch !== null)
      this.#deps.streams.handOverEnded(this.#options.generation.generation_id);
  }

  #do(due: MigrationDue): Promise<MigrationInput> {
    switch (due.kind) {
      case "load":
        return this.#load();
      case "copy":
        return this.#copy(due);
      case "claim":
        return this.#claim(due);
      case "hand_over":
        return this.#handOver(due);
      case "ask":
        return this.#ask(due);
      case "fence":
        return this.#fence(due);
      case "go_on":
        return this.#goOn(due);
      case "end":
        throw new Error("a move that has ended has nothing due");
    }
  }

  async #load(): Promise<MigrationInput> {
    if (this.#migration.state === "planned")
      await this.#row.note(this.#migration.progress, { to: "loading" });
    this.#to = await orAborted(this.#options.destination, this.#options.signal);
    this.#row.arrivesAt(this.#to.instance_id);
    return { type: "loaded" };
  }

  /** Follows the rounds until it can be handed over; the source goes on sending until the stream here is left. */
  async #copy({ epoch }: StepOf<"copy">): Promise<MigrationInput> {
    const { workers, settings } = this.#deps;
    const { generation, with_kv, signal } = this.#options;
    const to = this.#destination();
    const leave = () => this.#copying.abort();
    signal.addEventListener("abort", leave, { once: true });
    const events = workers.moveGeneration(
      this.#source(),
      generation.generation_id,
      {
        protocol_version: protocolVersion,
        to: { ...this.#address(to), instance_id: to.instance_id },
        epoch,
        ...settings,
        ...(with_kv ? { with_kv } : {}),
      },
      this.#copying.signal,
    );
    const reader = events[Symbol.asyncIterator]();
    try {
      for (let next = await reader.next(); next.done !== true; next = await reader.next()) {
        const event = next.value;
        if (event.type === "kv") this.#noteKv(event);
        if (event.type === "round") await this.#noteRound(event);
        if (event.type === "ready") {
          void drainQuietly(reader);
          return { type: "ready", progress: event };
        }
        if (event.type === "ended") return { type: "ended" };
        if (event.type === "error") return { type: "given_up", error: event.error };
      }
    } finally {
      signal.removeEventListener("abort", leave);
    }
    return { type: "given_up", error: signal.aborted ? wasStopped : brokeOff };
  }

  #noteKv({ bytes, kv_ms }: Extract<MoveEvent, { type: "kv" }>): void {
    this.#row.sentKv(kv_ms);
    this.#options.onSentKv(bytes, kv_ms);
  }

  async #noteRound(event: Extract<MoveEvent, { type: "round" }>): Promise<void> {
    const before = this.#migration;
    this.#migration = advance(before, { type: "round", progress: event });
    if (event.rounds === 1 && event.bytes === 0) {
      this.#row.computed(event.round_tokens, event.round_ms);
      this.#options.onComputed(event.round_tokens, event.round_ms);
    }
    await this.#row.noteProgress(event);
  }

  /** In the name of its owner, who goes on feeding it. */
  async #claim({ seen_epoch }: StepOf<"claim">): Promise<MigrationInput> {
    const { store, streams, clock, gateway_id } = this.#deps;
    const { generation, row, source } = this.#options;
    const { generation_id } = generation;
    const known = await store.getGeneration(generation_id);
    const at = this.#migration.waitsToGoOn ? source : this.#destination();
    const { won, row: now } = await store.claimGeneration({
      ...{ generation_id, model_id: row.model_id, owner: generation.owner ?? gateway_id },
      ...{ seen_epoch, epoch: seen_epoch + 1 },
      created_at_ms: known?.created_at.getTime() ?? clock.wallMs(),
      at: { worker_id: at.worker_id, instance_id: at.instance_id },
    });
    if (!won) {
      if (now.finished_at !== null) return { type: "ended" };
      const message = `Epoch ${now.epoch} has taken the generation over.`;
      return { type: "lost", error: { code: "stale_generation", message } };
    }
    const { epoch } = now;
    if (!this.#migration.waitsToGoOn) {
      const { worker_id, instance_id } = at;
      streams.handOver(generation_id, { epoch, worker_id, instance_id });
    }
    return { type: "won", epoch };
  }

  async #handOver({ epoch }: StepOf<"hand_over">): Promise<MigrationInput> {
    const { generation_id, owner } = this.#options.generation;
    try {
      const request = { protocol_version: protocolVersion, epoch, owner };
      const response = await this.#deps.workers.handOver(this.#source(), generation_id, request);
      this.#row.handedOver(response);
      return { type: "handed_over", response };
    } catch (thrown) {
      const { code, message } = toSllmError(thrown);
      // A source that refuses has not begun; one that is not heard may have.
      return code === "worker_unavailable"
        ? { type: "silent", error: { code, message } }
        : { type: "given_up", error: { code, message } };
    }
  }

  async #ask({ epoch }: StepOf<"ask">): Promise<MigrationInput> {
    const { workers, clock, addressOf } = this.#deps;
    const to = this.#to ?? (await this.#options.destination.catch(() => null));
    const worker = to === null ? null : addressOf(to);
    // Another process there knows nothing of it.
    if (worker === null) return { type: "found", isThere: false };
    for (let i = 0; i < asks; i++) {
      try {
        const found = await workers.findGeneration(worker, this.#options.generation.generation_id);
        return { type: "found", isThere: found !== null && found.epoch >= epoch };
      } catch {
        // Not to be reached, now: asked again.
        await clock.sleep(limits.hand_over_pause_ms);
      }
    }
    return { type: "found", isThere: null };
  }

  async #fence({ epoch }: StepOf<"fence">): Promise<MigrationInput> {
    const { workers, addressOf, log } = this.#deps;
    const worker = this.#to === null ? null : addressOf(this.#to);
    try {
      if (worker !== null) await workers.cancel(worker, this.#options.generation.generation_id, { epoch });
    } catch (error) {
      // Nobody reads there what it may still say, and its grace time ends it.
      log.warn("destination_not_fenced", { ...this.#names(), reason: toSllmError(error).message });
    }
    return { type: "fenced" };
  }

  async #goOn({ epoch }: StepOf<"go_on">): Promise<MigrationInput> {
    const { workers, log } = this.#deps;
    const { generation_id, owner } = this.#options.generation;
    try {
      await workers.goOn(this.#source(), generation_id, { protocol_version: protocolVersion, epoch, owner });
    } catch (error) {
      // Its reader notices as well, and continues it from the tokens it has.
      log.warn("source_is_gone", { ...this.#names(), reason: toSllmError(error).message });
    }
    return { type: "went_on" };
  }

  #source(): WorkerAddress {
    return this.#address(this.#options.source);
  }

  #destination(): InstanceRow {
    if (this.#to === null) throw new Error("there is no destination yet");
    return this.#to;
  }

  #address(instance: InstanceRow): WorkerAddress {
    const address = this.#deps.addressOf(instance);
    if (address !== null) return address;
    throw new SllmError("worker_unavailable", `Worker ${instance.worker_id} is not there any more.`);
  }

  #write(before: Migration): Promise<void> {
    const { state, won_epoch, error } = this.#migration;
    if (state === before.state && won_epoch === before.won_epoch) return Promise.resolve();
    return this.#row.note(this.#migration.progress, {
      to: state,
      ...(won_epoch === null ? {} : { epoch: won_epoch }),
      ...(error === null || !hasEnded(this.#migration) ? {} : { error }),
    });
  }

  #names() {
    const { migration_id, generation_id } = this.#options.row;
    return { migration_id, generation_id };
  }
}

const wasStopped: WireError = { code: "cancelled", message: "The move was given up." };
const brokeOff: WireError = { code: "worker_unavailable", message: "The source broke the move off." };
