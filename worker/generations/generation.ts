/**
 * One generation at this worker: its log with all its readers, who owns it, and what is needed to go on with it
 * elsewhere. Without a reader it goes on for its grace time, and so long its log is kept after its end; only an explicit
 * cancel, its own end, a hand-over or the end of the grace time ends it.
 */
import type { AttachEvent, GenerationRecord } from "../../schema/cluster/attach.ts";
import type {
  GenerationEvent,
  GenerationHop,
  GenerationPlace,
  GenerationSettings,
  TokensEvent,
} from "../../schema/cluster/generate.ts";
import { SllmError, type WireError } from "../../schema/error.ts";
import type { GatewayId, GenerationId, InstanceId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import { Changes } from "../changes.ts";
import type { Clock, EventReader } from "../ports.ts";
import type { EngineRun } from "./engine-run.ts";
import { EventLog } from "./event-log.ts";

export interface GenerationOptions {
  readonly generation_id: GenerationId;
  readonly epoch: number;
  readonly owner?: GatewayId | undefined;
  readonly instance_id: InstanceId;
  /** null for vectors: nobody goes on with them or reads them twice. */
  readonly settings: GenerationSettings | null;
  /** This run is the last of them. */
  readonly hops: readonly GenerationHop[];
  /** The prompt's tokens, where they are known before the engine tells them. */
  readonly prompt?: readonly number[];
  /** What was told of the output before this run. */
  readonly told?: readonly TokensEvent[];
  /** Whether its first reader wants the prompt's tokens. */
  readonly tell_prompt?: boolean;
  readonly clock: Clock;
  /** Asks the engine to end it. */
  readonly onCancel: () => void;
  /** Called once, with the last event. */
  readonly onEnd: () => void;
  /** Called once, when nobody reads it any more after its end: it may be forgotten. */
  readonly onLeft?: () => void;
}

export class Generation {
  readonly generation_id: GenerationId;
  readonly instance_id: InstanceId;
  /** Wakes whoever follows it beside its readers. */
  readonly changes = new Changes();
  /** Its request at the engine; set by the registry. */
  run: EngineRun | null = null;
  readonly #options: GenerationOptions;
  readonly #log: EventLog;
  #epoch: number;
  #owner: GatewayId | null;
  #prompt: readonly number[] | null;
  #cached_tokens = 0;
  #hasCalls = false;
  #grace: AbortController | null = null;
  #isForgotten = false;

  constructor(options: GenerationOptions) {
    this.generation_id = options.generation_id;
    this.instance_id = options.instance_id;
    this.#options = options;
    this.#epoch = options.epoch;
    this.#owner = options.owner ?? null;
    this.#prompt = options.prompt ?? null;
    const begin = options.told?.[0]?.first_index ?? options.hops.at(-1)?.first_index ?? 0;
    this.#log = new EventLog(begin, {
      isKept: options.settings !== null,
      onReaders: () => this.#onReaders(),
    });
    for (const event of options.told ?? []) this.#keep(event);
  }

  get epoch(): number {
    return this.#epoch;
  }

  /** True when its last event has come. */
  get hasEnded(): boolean {
    return this.#log.hasEnded;
  }

  get readers(): number {
    return this.#log.readers;
  }

  /** Bytes of its log. */
  get bytes(): number {
    return this.#log.bytes;
  }

  /** Index of the token that comes next. */
  get next_index(): number {
    return this.#log.next_index;
  }

  /** Where it has gone, if it has. */
  get moved(): GenerationPlace | null {
    const end = this.#log.end;
    return end?.type === "moved" ? end.to : null;
  }

  /** Of its prompt, found in the KV cache, as its engine told. */
  get cached_tokens(): number {
    return this.#cached_tokens;
  }

  /** Whether an adapter answers. */
  get usesAdapter(): boolean {
    return this.#options.settings?.adapter !== undefined;
  }

  /** Whether it can go on elsewhere: vectors cannot. */
  get canMove(): boolean {
    return this.#options.settings !== null;
  }

  /** What it told, from the event that has this token on. */
  told(from = 0): TokensEvent[] {
    return this.#log.told(from);
  }

  /** Takes an event of the engine; those after the last one are dropped. */
  push(event: GenerationEvent): void {
    if (this.#log.hasEnded) return;
    if (event.type === "started") this.#cached_tokens = event.cached_tokens ?? 0;
    if (event.type === "started" && event.prompt !== undefined) {
      this.#prompt = event.prompt;
      const { prompt: _, ...rest } = event;
      this.#keep(this.#options.tell_prompt === true ? event : rest);
    } else this.#keep(event);
    this.changes.notify();
    if (!this.#log.hasEnded) return;
    this.#options.onEnd();
    if (this.#log.readers === 0) this.#onReaders();
  }

  #keep(event: GenerationEvent): void {
    if (event.type === "tokens" && event.delta?.tool_calls !== undefined) this.#hasCalls = true;
    this.#log.push(event);
  }

  /** Ends it with an error at once; the engine is asked to stop. */
  end(error: WireError): void {
    this.#stop({ type: "error", error });
  }

  /** It goes on elsewhere: readers are told so after the last token, the engine is asked to stop. */
  moveTo(to: GenerationPlace): void {
    this.#stop({ type: "moved", to });
  }

  #stop(last: GenerationEvent): void {
    if (this.#log.hasEnded) return;
    this.#options.onCancel();
    this.push(last);
  }

  /** Asks the engine to end it; its `error` event with code `cancelled` follows. False when it had ended. */
  cancel(): boolean {
    if (this.#log.hasEnded) return false;
    this.#options.onCancel();
    return true;
  }

  /** A new owner, or the same one in a later epoch; the registry has seen to it that the epoch is no earlier one. */
  own(epoch: number, owner: GatewayId | null): void {
    this.#epoch = epoch;
    this.#owner = owner;
  }

  /** The reader of whoever started it: everything of this run. */
  readRun(): EventReader<GenerationEvent> {
    return this.#log.readFrom(this.#options.hops.at(-1)?.first_index ?? 0);
  }

  /** The record, then everything from a token on. Throws `generation_lost` where that is not possible. */
  attach(from: number): EventReader<AttachEvent> {
    const record = this.record();
    const events = this.#log.readFrom(from);
    let isFirst = true;
    return {
      next: () => {
        if (!isFirst) return events.next();
        isFirst = false;
        return Promise.resolve({ type: "record", record });
      },
      close: () => events.close(),
    };
  }

  /** What is needed to go on with it elsewhere, beside what it told. Vectors have none: `not_found`. */
  record(): GenerationRecord {
    const { generation_id, settings, hops } = this.#options;
    if (settings === null) throw new SllmError("not_found", "Vectors are read once, by who asked for them.");
    return {
      ...{ generation_id, epoch: this.#epoch, owner: this.#owner, instance_id: this.instance_id, settings },
      prompt: this.#prompt === null ? null : [...this.#prompt],
      hops: [...hops],
      first_index: this.#log.first_index,
      ...(this.#hasCalls ? { has_calls: true } : {}),
    };
  }

  /** Nobody reads it yet: its grace time begins. */
  awaitReader(): void {
    this.#onReaders();
  }

  #onReaders(): void {
    if (this.#log.readers > 0) {
      this.#grace?.abort();
      this.#grace = null;
      return;
    }
    this.#grace?.abort();
    const grace = new AbortController();
    this.#grace = grace;
    void this.#waitForReader(grace.signal);
  }

  async #waitForReader(returned: AbortSignal): Promise<void> {
    const { clock, settings, onLeft } = this.#options;
    await clock.sleep(settings?.grace_ms ?? limits.orphan_grace_ms, returned);
    if (returned.aborted) return;
    if (this.#log.hasEnded) {
      if (!this.#isForgotten) onLeft?.();
      this.#isForgotten = true;
    } else this.cancel();
  }
}
