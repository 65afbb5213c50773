/**
 * Drives one generation through its life: does what is due (due.ts) and feeds the reducer (generation.ts) what came of it.
 * Longer than other files because placing, reading, re-attaching and claiming are the arms of one loop.
 */
import type { AttachEvent } from "../../schema/cluster/attach.ts";
import type { MessageDelta } from "../../schema/cluster/conversation.ts";
import type { DoneEvent, TokensEvent } from "../../schema/cluster/generate.ts";
import type { ErrorCode } from "../../schema/codes.ts";
import { SllmError, toSllmError } from "../../schema/error.ts";
import type { GatewayId, InstanceId, WorkerId } from "../../schema/ids.ts";
import { limits } from "../../schema/limits.ts";
import type { Ticket } from "../admission/ticket.ts";
import { type FailInstanceDeps, failInstance } from "../placement/fail-instance.ts";
import type { InstanceUse } from "../placement/instance-uses.ts";
import type { Clock, StateStore, WorkerAddress, WorkerClient } from "../ports.ts";
import { type Deadline, type Placement, throwIfCancelled } from "./ask.ts";
import { claim } from "./claim.ts";
import { dueIn, haveSameMaker, isOnPath, mayPlaceAgain } from "./due.ts";
import { advance, type Generation, type GenerationInput, hasEnded } from "./generation.ts";
import type { Placer } from "./placer.ts";
import { hasCalls, Told, tailOf } from "./told.ts";
import type { AnswerPiece, GenerationUpdate, WorkRequest } from "./updates.ts";
import { fromSettings, isEmbedding, toEmbedCall, toGenerateCall } from "./worker-request.ts";

export interface DriverDeps extends FailInstanceDeps {
  readonly placer: Placer;
  readonly store: FailInstanceDeps["store"] &
    Pick<StateStore, "claimGeneration" | "getGeneration" | "getStored">;
  readonly workers: Pick<WorkerClient, "generate" | "embed" | "attach" | "cancel">;
  readonly clock: Clock;
  readonly gateway_id: GatewayId;
  /** Whether a gateway may still see to what it owns. */
  readonly isAlive: (gateway: GatewayId) => boolean;
  /** How long a generation that lost its place may wait for another one, in milliseconds. */
  readonly hold_ms: number;
}

/** What the driver tells while it drives; each may be told several times. */
export interface DriverHooks {
  /** The request's place among those that wait. */
  readonly ticket: () => Ticket;
  /** The generation stopped waiting for an instance. */
  readonly onPlaced: () => void;
  /** The next thing to come takes a while: a load or a prefill. Time for work that the first token need not wait for. */
  readonly onUnhurried: () => void;
}

export interface Drive {
  readonly state: Generation;
  /** null: whoever runs it knows. */
  readonly request: WorkRequest | null;
  readonly created_at_ms: number;
  /** Others may own it, or come to: an epoch is won in the store. Else only while the store answers. */
  readonly isShared: boolean;
  /** What is known of it from before. */
  readonly told?: readonly TokensEvent[];
  readonly prompt?: readonly number[] | null;
  /** Its gateway, as the row says. */
  readonly owner?: GatewayId | null;
  /** Whose it must be, where nothing else has told. */
  readonly tenant?: string;
  /** Of whoever has read before: where the last token was told. */
  readonly seen?: { readonly worker_id: WorkerId; readonly last_index: number };
  readonly signal: AbortSignal;
  readonly hooks: DriverHooks;
}

/** Pauses between cancels of a generation that its worker may not have seen yet when it was cancelled. */
const cancelPauses_ms = [0, 50, 200, 700];
/** Pauses between tries to keep a worker that was lost from going on. Afterwards it has no reader, and ends by itself. */
const fencePauses_ms = [0, 500, 2_000, 5_000];

/** What a worker says when the instance is not there any more. */
const deadInstanceCodes: ReadonlySet<ErrorCode> = new Set(["not_found", "engine_failed", "engine_killed"]);

type Updates = AsyncGenerator<GenerationUpdate, void>;

export class GenerationDriver {
  readonly told = new Told();
  readonly #deps: DriverDeps;
  readonly #drive: Drive;
  readonly #avoid = { workers: new Set<WorkerId>(), instances: new Set<InstanceId>() };
  #request: WorkRequest | null;
  #state: Generation;
  #prompt: readonly number[] | null;
  #done: DoneEvent | null = null;
  #stored_index: number;
  /** Of a generation that is read here only, as far as known. */
  #owner: GatewayId | null;
  /** Where tokens were told last, for readers to say so. */
  #toldAt: WorkerId | null = null;
  /** Whether a tool call came before what is read here. */
  #hadCalls = false;
  /** The last `error` event's: it ended there, and need not be looked for. */
  #endedThere = false;
  /** Ends the stream that is read. */
  #endStream: (() => void) | null = null;
  /** The stream was ended because somebody else owns the generation. */
  #isSuperseded = false;

  constructor(deps: DriverDeps, drive: Drive) {
    this.#deps = deps;
    this.#drive = drive;
    this.#state = drive.state;
    this.#request = drive.request;
    this.#prompt = drive.prompt ?? null;
    this.#owner = drive.owner ?? null;
    for (const event of drive.told ?? []) this.told.add(event);
    this.#stored_index = this.told.next_index;
  }

  get state(): Generation {
    return this.#state;
  }

  get request(): WorkRequest | null {
    return this.#request;
  }

  /** The prompt's tokens, once they are known. */
  get prompt(): readonly number[] | null {
    return this.#prompt;
  }

  /** Index of the first token that the store did not have when it was looked at last. */
  get stored_index(): number {
    return this.#stored_index;
  }

  /** Its end, once it has finished. */
  get done(): DoneEvent | null {
    return this.#done;
  }

  /** The whole life. After it ended, however, the state is an end. */
  async *run(deadline: Deadline): Updates {
    try {
      for (const event of this.told.events) yield this.#text(event);
      for (let due = dueIn(this.#state); due.kind !== "end"; due = dueIn(this.#state)) {
        if (due.kind === "place") yield* this.#place(deadline);
        else if (due.kind === "attach") yield* this.#attach(due.at.worker_id, due.at.instance_id);
        else if (due.kind === "claim") yield* this.#claim();
        else throw new Error("a generation is read in its step");
      }
    } catch (thrown) {
      const error = toSllmError(thrown);
      if (!hasEnded(this.#state)) {
        const isCancelled = this.#drive.signal.aborted || error.code === "cancelled";
        this.#apply(isCancelled ? { type: "cancelled" } : { type: "failed", error });
      }
      throw error;
    } finally {
      // Reached alive only when the reader returned in the middle.
      if (!hasEnded(this.#state)) this.#apply({ type: "cancelled" });
    }
  }

  /** A planned move is about to hand over: where it goes is asked first when the source is lost. */
  handOver(to: NonNullable<Generation["hand_over"]>): void {
    if (this.#mayHandOver && to.epoch > this.#state.epoch) this.#apply({ type: "hand_over", to });
  }

  /** The source goes on after all. */
  handOverEnded(): void {
    if (this.#mayHandOver) this.#apply({ type: "hand_over_ended" });
  }

  get #mayHandOver(): boolean {
    return this.#state.phase === "running" || this.#state.phase === "detached";
  }

  /** The row has another epoch, or has ended: it says who goes on, and where. Never rejects. */
  async recheck(): Promise<void> {
    const { store, gateway_id, log } = this.#deps;
    const { generation_id, epoch } = this.#state;
    try {
      const row = await store.getGeneration(generation_id);
      if (row === null || hasEnded(this.#state) || (row.epoch <= epoch && row.finished_at === null)) return;
      const { worker_id, instance_id } = row;
      const isMoving = row.owner === gateway_id && row.finished_at === null && row.epoch > epoch;
      if (!isMoving) {
        this.#isSuperseded = true;
        this.#endStream?.();
      }
      if (isMoving && worker_id !== null && instance_id !== null) {
        this.handOver({ epoch: row.epoch, worker_id, instance_id });
      }
    } catch (error) {
      // Asked again with the next batch.
      log.warn("owner_unknown", { generation_id, message: error instanceof Error ? error.message : null });
    }
  }

  #apply(input: GenerationInput): void {
    this.#state = advance(this.#state, input);
  }

  /** One placement and its stream; returns also after a failure that another attempt may mend. */
  async *#place(first: Deadline): Updates {
    const { placer, clock, hold_ms } = this.#deps;
    const { marks, failed_attempts, next_index } = this.#state;
    const now_ms = clock.monotonicMs();
    const again = next_index > 0;
    if (again) yield* this.#pauseBeforeFailover();
    const request = this.#goOnWith();
    let placement: Placement | null = null;
    try {
      placement = yield* placer.place({
        model_id: request.model_id,
        adapter: isEmbedding(request) ? null : (request.adapter ?? null),
        signal: this.#drive.signal,
        arrived_ms: again ? now_ms : marks.arrived_ms,
        deadline: again ? { deadline_ms: now_ms + hold_ms, is_own: false } : first,
        ticket: this.#drive.hooks.ticket(),
        failed_attempts,
        avoid: this.#avoid,
        onLoadAwaited: (instance) => {
          this.#apply({ type: "load_awaited", host: hostOf(instance), at_ms: clock.monotonicMs() });
          this.#drive.hooks.onUnhurried();
        },
      });
      this.#drive.hooks.onPlaced();
      yield* this.#begin(placement, request);
    } catch (thrown) {
      await this.#takeFailure(toSllmError(thrown), placement);
    } finally {
      placement?.use.release();
    }
  }

  /** What is needed to go on; `generation_lost` where it is not known. */
  #goOnWith(): WorkRequest {
    const { next_index } = this.#state;
    const isKnown = next_index === 0 || (this.#prompt !== null && this.told.next_index === next_index);
    if (this.#request !== null && isKnown) return this.#request;
    throw new SllmError(
      "generation_lost",
      "Where the generation ran is lost, and with it what was told of it.",
    );
  }

  async *#pauseBeforeFailover(): Updates {
    const { failed_attempts } = this.#state;
    if (failed_attempts < 2) return;
    yield queued;
    const pause_ms = Math.min(limits.reconcile_ms * 2 ** (failed_attempts - 2), limits.failover_pause_ms);
    await this.#deps.clock.sleep(pause_ms, this.#drive.signal);
    throwIfCancelled(this.#drive.signal);
  }

  async *#begin(placement: Placement, request: WorkRequest): Updates {
    const { fleet, clock, workers, gateway_id } = this.#deps;
    const { instance, lost, load, use } = placement;
    throwIfCancelled(this.#drive.signal);
    const worker = fleet.addressOf(instance);
    if (worker === null)
      throw new SllmError("worker_unavailable", `Worker ${instance.worker_id} is unknown.`);
    this.#apply({ type: "sent", host: hostOf(instance), at_ms: clock.monotonicMs(), load });
    const { worker_id, instance_id } = instance;
    yield { type: "placed", worker_id, instance_id, cold_start: this.#state.cold_start };
    const known = { owner: gateway_id, told: this.told, prompt: this.#prompt };
    const events = isEmbedding(request)
      ? workers.embed(worker, toEmbedCall(this.#state, instance_id, request), lost.signal)
      : workers.generate(worker, toGenerateCall(this.#state, instance_id, request, known), lost.signal);
    const most = (prompt_tokens: number) => mostTokens(request, instance.context_tokens, prompt_tokens);
    yield* this.#read(events, worker, lost, use, most);
  }

  /** Reads it where it may run; returns also where it does not. */
  async *#attach(worker_id: WorkerId, instance_id: InstanceId): Updates {
    const { fleet, workers, gateway_id } = this.#deps;
    const { generation_id, next_index, is_owner, epoch } = this.#state;
    const lost = new AbortController();
    // Nothing is known of an instance before the worker's record names it.
    const use = instance_id === "" ? null : fleet.acquire(instance_id, () => lost.abort());
    try {
      const worker = fleet.addressOfWorker(worker_id);
      if (worker === null) throw new SllmError("worker_unavailable", `Worker ${worker_id} is unknown.`);
      const owner = is_owner ? { epoch, owner: gateway_id } : {};
      const events = workers.attach(worker, generation_id, { from: next_index, ...owner }, lost.signal);
      yield* this.#read(events, worker, lost, use, () => 0);
    } catch (thrown) {
      const error = toSllmError(thrown);
      // That the generation is not there says nothing about the instance.
      await this.#takeFailure(error.code === "not_found" ? gone(error) : error, null);
    } finally {
      use?.release();
    }
  }

  /** Reads a stream to its end. A connection that breaks leaves the state detached; what else fails is thrown. */
  async *#read(
    events: AsyncIterable<AttachEvent>,
    worker: WorkerAddress,
    lost: AbortController,
    use: InstanceUse | null,
    most: (prompt_tokens: number) => number,
  ): Updates {
    const { signal } = this.#drive;
    const leave = () => lost.abort();
    signal.addEventListener("abort", leave, { once: true });
    if (signal.aborted) leave();
    this.#endStream = leave;
    this.#isSuperseded = false;
    this.#endedThere = false;
    let open = true;
    try {
      for await (const event of events) {
        if (event.type === "started") use?.begun(event.prompt_tokens, most(event.prompt_tokens));
        else if (event.type === "tokens") use?.count(event.tokens.length);
        yield* this.#take(event, worker.worker_id);
        if (this.#state.phase === "detached") return;
      }
      throwIfCancelled(signal);
      open = false;
      if (!hasEnded(this.#state)) throw new SllmError("worker_unavailable", "The stream ended early.");
    } catch (error) {
      // What failed at the worker has ended there; what we refuse to read goes on until it is cancelled.
      open = signal.aborted || (error instanceof SllmError && error.code === "generation_lost");
      throw error;
    } finally {
      signal.removeEventListener("abort", leave);
      this.#endStream = null;
      const isOurs = this.#state.is_owner && this.#state.phase !== "detached";
      if (open && isOurs && !hasEnded(this.#state)) void this.#cancelAt(worker);
    }
  }

  /** After a failed attempt: the state says what is due then. Throws what no other attempt can mend. */
  async #takeFailure(error: SllmError, placement: Placement | null): Promise<void> {
    if (this.#drive.signal.aborted || hasEnded(this.#state)) throw error;
    const { phase, next_index, is_owner, hand_over } = this.#state;
    const isSuperseded = this.#isSuperseded;
    // A worker that was asked while it was silent need not be asked again, unless it may be elsewhere by now.
    const isKnown = error.is_silent && hand_over === null;
    const broke = error.code === "worker_unavailable" && !this.#endedThere && !isKnown;
    if (phase === "running" && broke && next_index > 0 && !isSuperseded) {
      this.#apply({ type: "lost" });
      return;
    }
    const recorded = this.#recordDeadInstance(error, placement);
    if (!isSuperseded && !mayPlaceAgain(this.#state, error)) throw error;
    this.#avoidHostOf(error);
    // Its memory has to be free before the next attempt decides.
    await recorded;
    const takes_claim = next_index > 0 || !is_owner || this.#drive.isShared;
    this.#apply({ type: "attempt_failed", takes_claim });
  }

  /** An instance that its worker does not know, or whose engine ended, is dead for all. Never rejects. */
  async #recordDeadInstance(error: SllmError, placement: Placement | null): Promise<void> {
    if (placement === null || !deadInstanceCodes.has(error.code)) return;
    await failInstance(this.#deps, placement.instance, error);
  }

  #avoidHostOf(error: SllmError): void {
    const { worker_id, instance_id } = this.#state;
    if (instance_id !== null) this.#avoid.instances.add(instance_id);
    if (error.code === "worker_unavailable" && worker_id !== null) this.#avoid.workers.add(worker_id);
  }

  /** Wins the epoch, or finds out where others have taken it. */
  async *#claim(): Updates {
    yield queued;
    const { isShared, created_at_ms, signal } = this.#drive;
    const before = this.#state;
    const isSuperseded = this.#isSuperseded;
    this.#isSuperseded = false;
    const model_id = this.#request?.model_id ?? before.model_id;
    const claimed = { state: before, model_id, isShared, isSuperseded, created_at_ms, signal };
    const outcome = await claim(this.#deps, claimed);
    throwIfCancelled(signal);
    switch (outcome.kind) {
      case "won": {
        const hops = isShared && !before.is_owner ? yield* this.#takeStored() : before.hops;
        this.#apply({ type: "claimed", epoch: outcome.epoch, hops });
        if (before.worker_id !== null) void this.#fence(before.worker_id, outcome.epoch);
        return;
      }
      case "elsewhere":
        this.#apply({ type: outcome.isOurs ? "moved" : "superseded", ...{ at: outcome.at, to: outcome.at } });
        return;
      case "ended":
        yield* this.#tellStored();
    }
  }

  /** What the owner before has told: a new one goes on after it. */
  async *#takeStored(): AsyncGenerator<GenerationUpdate, Generation["hops"]> {
    const { generation_id, next_index, hops } = this.#state;
    const stored = await this.#deps.store.getStored(generation_id);
    if (stored === null || stored.events.length === 0) return hops;
    this.#checkPath(stored.record.hops);
    for (const event of stored.events) {
      this.#stored_index = event.first_index + event.tokens.length;
      if (this.#stored_index > next_index) yield* this.#takeTokens(event, stored.row.worker_id ?? "");
    }
    this.#prompt ??= stored.record.prompt;
    return stored.record.hops;
  }

  /** While another gateway's generation is read here and that gateway is gone: it is this one's from now on. */
  async takeOver(): Promise<void> {
    const { store, gateway_id, isAlive, log } = this.#deps;
    const { generation_id, model_id, epoch, is_owner, phase } = this.#state;
    if (is_owner || phase !== "running" || this.#owner === null || isAlive(this.#owner)) return;
    try {
      const stored = await store.getStored(generation_id);
      if (stored === null || stored.row.finished_at !== null) return;
      this.#owner = stored.row.owner;
      if (this.#owner !== null && isAlive(this.#owner)) return;
      const wanted = { generation_id, model_id, created_at_ms: this.#drive.created_at_ms, owner: gateway_id };
      const next = { seen_epoch: stored.row.epoch, epoch: Math.max(stored.row.epoch, epoch) + 1 };
      const { won } = await store.claimGeneration({ ...wanted, ...next });
      if (!won || this.#state.phase !== "running") return;
      const last = stored.events.at(-1);
      this.#stored_index = last === undefined ? 0 : last.first_index + last.tokens.length;
      this.#apply({ type: "claimed", epoch: next.epoch });
      log.info("generation_taken_over", { generation_id, epoch: next.epoch });
    } catch (error) {
      // Tried again with the next look at the gateways.
      log.warn("generation_not_taken_over", {
        generation_id,
        message: error instanceof Error ? error.message : null,
      });
    }
  }

  /** It came to its end elsewhere: the rest is read from what was kept. */
  async *#tellStored(): Updates {
    const { store } = this.#deps;
    const { generation_id, next_index } = this.#state;
    const stored = await store.getStored(generation_id);
    if (stored?.row.state === "cancelled") throw new SllmError("cancelled", "The generation was cancelled.");
    const done = stored?.record.done ?? null;
    if (stored === null || done === null) {
      const code = stored?.row.error_code ?? "generation_lost";
      throw new SllmError(code, stored?.row.error_message ?? "The generation ended elsewhere.");
    }
    this.#checkPath(stored.record.hops);
    const at = { worker_id: stored.row.worker_id ?? "", instance_id: stored.row.instance_id ?? "" };
    this.#apply({ type: "superseded", at: { ...at, epoch: stored.row.epoch } });
    this.#apply({
      ...{ type: "attached", epoch: stored.row.epoch },
      ...{ instance_id: at.instance_id, hops: stored.record.hops },
    });
    for (const event of stored.events) {
      if (event.first_index + event.tokens.length > next_index) yield* this.#take(event, at.worker_id);
    }
    yield* this.#take(done, at.worker_id);
  }

  *#take(event: AttachEvent, worker_id: WorkerId): Generator<GenerationUpdate> {
    switch (event.type) {
      case "record":
        yield* this.#takeRecord(event.record, worker_id);
        return;
      case "started":
        this.#prompt ??= event.prompt ?? null;
        if (this.#state.phase !== "sent") return;
        this.#apply(event);
        if (this.#state.next_index === 0) yield { type: "accepted", prompt_tokens: event.prompt_tokens };
        else yield this.#movedTo(worker_id, "failover");
        this.#drive.hooks.onUnhurried();
        return;
      case "tokens":
        yield* this.#takeTokens(event, worker_id);
        return;
      case "vectors": {
        const { first_index, vectors } = event;
        const at_ms = this.#deps.clock.monotonicMs();
        this.#apply({ type: "tokens", first_index, count: vectors.length, at_ms });
        yield { type: "vectors", vectors };
        return;
      }
      case "done":
        yield* this.#takeDone(event);
        return;
      case "moved":
        this.#apply({ type: "moved", to: event.to });
        return;
      case "error":
        this.#endedThere = true;
        throw new SllmError(event.error.code, event.error.message);
    }
  }

  *#takeRecord(
    record: Extract<AttachEvent, { type: "record" }>["record"],
    worker_id: WorkerId,
  ): Generator<GenerationUpdate> {
    const { tenant } = this.#drive;
    if (tenant !== undefined && record.settings.origin?.tenant !== tenant) {
      throw new SllmError("generation_lost", "The generation is not known.");
    }
    this.#checkPath(record.hops);
    const { epoch, instance_id } = record;
    this.#apply({ type: "attached", epoch, instance_id, hops: record.hops });
    this.#prompt ??= record.prompt;
    this.#owner = record.owner ?? this.#owner;
    if (record.has_calls === true) this.#hadCalls = true;
    this.#request ??= fromSettings(record.settings);
    yield this.#movedTo(worker_id, "moved");
  }

  /** Throws `generation_lost` where what was told here is not what others have. */
  #checkPath(path: Generation["hops"]): void {
    const { hops, next_index } = this.#state;
    const { seen } = this.#drive;
    const isOn =
      hops.length === 0
        ? seen === undefined || isOnPath(path, seen.worker_id, seen.last_index)
        : next_index === 0 || haveSameMaker(path, hops, next_index - 1);
    if (isOn) return;
    throw new SllmError("generation_lost", "The generation went on without tokens that were told here.");
  }

  *#takeTokens(event: TokensEvent, worker_id: WorkerId): Generator<GenerationUpdate> {
    const { next_index } = this.#state;
    const { first_index, tokens } = event;
    const at_ms = this.#deps.clock.monotonicMs();
    this.#apply({ type: "tokens", first_index, count: tokens.length, at_ms });
    if (this.#state.next_index === next_index) return;
    const fresh = tailOf(event, Math.max(next_index, first_index));
    if (this.told.next_index === next_index) this.told.add(fresh);
    this.#toldAt = worker_id;
    if (this.#avoid.instances.size > 0) {
      this.#avoid.instances.clear();
      this.#avoid.workers.clear();
    }
    yield this.#text(fresh);
  }

  #text({ first_index, tokens, delta }: TokensEvent): GenerationUpdate {
    let text = "";
    for (const token of tokens) text += token.text;
    const last_token_index = first_index + tokens.length - 1;
    return { type: "text", choice: 0, text, delta: delta ?? null, tokens, last_token_index };
  }

  *#takeDone(event: DoneEvent): Generator<GenerationUpdate> {
    const { text, finish_reason, prompt_tokens, completion_tokens } = event;
    this.#apply(event);
    this.#done = event;
    const usage = {
      prompt_tokens,
      completion_tokens,
      total_tokens: prompt_tokens + completion_tokens,
      prompt_tokens_details: { cached_tokens: event.cached_tokens ?? 0 },
    };
    const had_calls = this.#hadCalls || hasCalls(this.told.events);
    yield { type: "done", ...this.#piece(text, event.delta ?? null), finish_reason, usage, had_calls };
  }

  #movedTo(worker_id: WorkerId, why: "moved" | "failover"): GenerationUpdate {
    const instance_id = this.#state.instance_id ?? "";
    // Read again where it was: nothing to tell but where, for the events to come.
    if (this.#toldAt === null || this.#toldAt === worker_id)
      return { type: "placed", worker_id, instance_id, cold_start: this.#state.cold_start };
    return { type: "moved", worker_id, instance_id, why };
  }

  #piece(text: string, delta: MessageDelta | null): AnswerPiece {
    return { choice: 0, text, delta, tokens: [], last_token_index: this.#state.next_index - 1 };
  }

  /** Frees the slot. Repeated while the worker may still be about to receive the request; never rejects. */
  async #cancelAt(worker: WorkerAddress): Promise<void> {
    const { clock, workers, log } = this.#deps;
    const { generation_id } = this.#state;
    try {
      for (const pause_ms of cancelPauses_ms) {
        if (pause_ms > 0) await clock.sleep(pause_ms);
        const { cancelled, moved } = await workers.cancel(worker, generation_id);
        if (cancelled) return;
        const next = moved === undefined ? null : this.#deps.fleet.addressOfWorker(moved.worker_id);
        if (next !== null && next.worker_id !== worker.worker_id) return await this.#cancelAt(next);
      }
    } catch (error) {
      // The worker's own grace time ends the generation of a reader that is gone.
      log.warn("cancel_failed", { generation_id, message: error instanceof Error ? error.message : null });
    }
  }

  /** Nothing of the epochs before may go on or begin there. Never rejects. */
  async #fence(worker_id: WorkerId, epoch: number): Promise<void> {
    const { clock, workers, fleet } = this.#deps;
    for (const pause_ms of fencePauses_ms) {
      if (pause_ms > 0) await clock.sleep(pause_ms);
      const worker = fleet.addressOfWorker(worker_id);
      if (worker === null || (hasEnded(this.#state) && pause_ms > 0)) return;
      // It runs there again, in this very epoch.
      if (this.#state.worker_id === worker_id && this.#state.phase !== "queued") return;
      try {
        await workers.cancel(worker, this.#state.generation_id, { epoch });
        return;
      } catch (error) {
        // Refused for a later epoch, which is as good; a worker that does not answer is asked again.
        if (error instanceof SllmError && error.code === "stale_generation") return;
      }
    }
  }
}

/** Told while it looks for a place again. */
const queued: GenerationUpdate = {
  ...{ type: "waiting", state: "queued", position: 1, eta_ms: null, bytes_done: null, bytes_total: null },
};

function gone(error: SllmError): SllmError {
  return new SllmError("worker_unavailable", "The worker does not know the generation.", { cause: error });
}

function hostOf({ worker_id, instance_id }: { worker_id: WorkerId; instance_id: InstanceId }) {
  return { worker_id, instance_id };
}

/** The request's own bound, at most what is left of the context; embeddings have no output. */
function mostTokens(request: WorkRequest, context_tokens: number, prompt_tokens: number): number {
  if (isEmbedding(request)) return 0;
  const left = Math.max(0, context_tokens - prompt_tokens);
  return Math.min(request.max_tokens ?? left, left);
}
