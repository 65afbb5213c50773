/** Drives one generation through its life: places it, streams it, tries again where nothing was shown yet. */
import type { MessageDelta } from "../../schema/cluster/conversation.ts";
import type { GenerationEvent } from "../../schema/cluster/generate.ts";
import { protocolVersion } from "../../schema/cluster/protocol.ts";
import type { ErrorCode } from "../../schema/codes.ts";
import { SllmError, toSllmError } from "../../schema/error.ts";
import type { InstanceId, WorkerId } from "../../schema/ids.ts";
import type { Ticket } from "../admission/wait-queue.ts";
import { type FailInstanceDeps, failInstance } from "../placement/fail-instance.ts";
import type { Clock, WorkerAddress, WorkerClient } from "../ports.ts";
import { type Deadline, type Placement, throwIfCancelled } from "./ask.ts";
import { mayPlaceAgain } from "./due.ts";
import { advance, type Generation, type GenerationInput, hasEnded } from "./generation.ts";
import type { Placer } from "./placer.ts";
import type { AnswerPiece, GenerationUpdate, WorkRequest } from "./updates.ts";

export interface DriverDeps extends FailInstanceDeps {
  readonly placer: Placer;
  readonly workers: Pick<WorkerClient, "generate" | "embed" | "cancel">;
  readonly clock: Clock;
}

/** What the driver tells while it drives; each may be told several times. */
export interface DriverHooks {
  /** The request's place among those that wait. */
  readonly ticket: Ticket;
  /** The generation stopped waiting for an instance. */
  readonly onPlaced: () => void;
  /** The next thing to come takes a while: a load or a prefill. Time for work that the first token need not wait for. */
  readonly onUnhurried: () => void;
}

/** Pauses between cancels of a generation that its worker may not have seen yet when it was cancelled. */
const cancelPauses_ms = [0, 50, 200, 700];

/** What a worker says when the instance is not there any more. */
const deadInstanceCodes: ReadonlySet<ErrorCode> = new Set(["not_found", "engine_failed"]);

type Updates = AsyncGenerator<GenerationUpdate, void>;

export class GenerationDriver {
  readonly #deps: DriverDeps;
  readonly #request: WorkRequest;
  readonly #signal: AbortSignal;
  readonly #hooks: DriverHooks;
  readonly #avoid = { workers: new Set<WorkerId>(), instances: new Set<InstanceId>() };
  #state: Generation;

  constructor(
    deps: DriverDeps,
    state: Generation,
    request: WorkRequest,
    signal: AbortSignal,
    hooks: DriverHooks,
  ) {
    this.#deps = deps;
    this.#state = state;
    this.#request = request;
    this.#signal = signal;
    this.#hooks = hooks;
  }

  get state(): Generation {
    return this.#state;
  }

  /** The whole life. After it ended, however, the state is an end. */
  async *run(deadline: Deadline): Updates {
    try {
      while (!hasEnded(this.#state)) yield* this.#attempt(deadline);
    } catch (thrown) {
      const error = toSllmError(thrown);
      if (!hasEnded(this.#state)) {
        this.#apply(this.#signal.aborted ? { type: "cancelled" } : { type: "failed", error });
      }
      throw error;
    } finally {
      // Reached alive only when the reader returned in the middle.
      if (!hasEnded(this.#state)) this.#apply({ type: "cancelled" });
    }
  }

  #apply(input: GenerationInput): void {
    this.#state = advance(this.#state, input);
  }

  /** One placement and its stream; returns also after a failure that another attempt may mend. */
  async *#attempt(deadline: Deadline): Updates {
    const { placer, clock } = this.#deps;
    let placement: Placement | null = null;
    try {
      placement = yield* placer.place({
        model_id: this.#request.model_id,
        adapter: "inputs" in this.#request ? null : (this.#request.adapter ?? null),
        signal: this.#signal,
        arrived_ms: this.#state.marks.arrived_ms,
        deadline,
        ticket: this.#hooks.ticket,
        failed_attempts: this.#state.failed_attempts,
        avoid: this.#avoid,
        onLoadAwaited: (instance) => {
          this.#apply({ type: "load_awaited", host: hostOf(instance), at_ms: clock.monotonicMs() });
          this.#hooks.onUnhurried();
        },
      });
      this.#hooks.onPlaced();
      yield* this.#stream(placement);
    } catch (thrown) {
      const error = toSllmError(thrown);
      if (this.#signal.aborted) throw error;
      const recorded = this.#recordDeadInstance(error, placement);
      if (this.#state.next_index > 0 || !mayPlaceAgain(this.#state, error)) throw error;
      this.#avoidHostOf(error);
      // Its memory has to be free before the next attempt decides.
      await recorded;
      this.#apply({ type: "attempt_failed", takes_claim: false });
    } finally {
      placement?.use.release();
    }
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

  async *#stream(placement: Placement): Updates {
    const { fleet, clock } = this.#deps;
    const { instance, lost, load } = placement;
    throwIfCancelled(this.#signal);
    const worker = fleet.addressOf(instance);
    if (worker === null)
      throw new SllmError("worker_unavailable", `Worker ${instance.worker_id} is unknown.`);
    this.#apply({ type: "sent", host: hostOf(instance), at_ms: clock.monotonicMs(), load });
    const { worker_id, instance_id } = instance;
    yield { type: "placed", worker_id, instance_id, cold_start: this.#state.cold_start };

    const leave = () => lost.abort();
    this.#signal.addEventListener("abort", leave, { once: true });
    if (this.#signal.aborted) leave();
    let open = true;
    try {
      for await (const event of this.#open(worker, instance_id, lost.signal)) {
        if (event.type === "started")
          placement.use.begun(event.prompt_tokens, this.#mostTokens(placement, event));
        else if (event.type === "tokens") placement.use.count(event.tokens.length);
        yield* this.#take(event);
      }
      throwIfCancelled(this.#signal);
      open = false;
      if (!hasEnded(this.#state)) throw new SllmError("worker_unavailable", "The instance ended.");
    } catch (error) {
      // What failed at the worker has ended there; what we refuse to read goes on until it is cancelled.
      open = this.#signal.aborted || (error instanceof SllmError && error.code === "generation_lost");
      throw error;
    } finally {
      this.#signal.removeEventListener("abort", leave);
      if (open && !hasEnded(this.#state)) void this.#cancelAt(worker);
    }
  }

  /** The request's own bound, at most what is left of the context; embeddings have no output. */
  #mostTokens({ instance }: Placement, { prompt_tokens }: { readonly prompt_tokens: number }): number {
    if ("inputs" in this.#request) return 0;
    const left = Math.max(0, instance.context_tokens - prompt_tokens);
    return Math.min(this.#request.max_tokens ?? left, left);
  }

  *#take(event: GenerationEvent): Generator<GenerationUpdate> {
    switch (event.type) {
      case "started":
        this.#apply(event);
        yield { type: "accepted", prompt_tokens: event.prompt_tokens };
        this.#hooks.onUnhurried();
        return;
      case "tokens": {
        const { first_index, tokens } = event;
        const at_ms = this.#deps.clock.monotonicMs();
        this.#apply({ type: "tokens", first_index, count: tokens.length, at_ms });
        let text = "";
        for (const token of tokens) text += token.text;
        yield { type: "text", ...this.#piece(text, event.delta ?? null), tokens };
        return;
      }
      case "vectors": {
        const { first_index, vectors } = event;
        const at_ms = this.#deps.clock.monotonicMs();
        this.#apply({ type: "tokens", first_index, count: vectors.length, at_ms });
        yield { type: "vectors", vectors };
        return;
      }
      case "done": {
        const { text, finish_reason, prompt_tokens, completion_tokens } = event;
        this.#apply(event);
        const usage = {
          prompt_tokens,
          completion_tokens,
          total_tokens: prompt_tokens + completion_tokens,
          prompt_tokens_details: { cached_tokens: event.cached_tokens ?? 0 },
        };
        yield { type: "done", ...this.#piece(text, event.delta ?? null), finish_reason, usage };
        return;
      }
      case "error":
        throw new SllmError(event.error.code, event.error.message);
      case "moved":
        throw new SllmError("generation_lost", "The generation was moved to another worker.");
    }
  }

  #piece(text: string, delta: MessageDelta | null): AnswerPiece {
    return { choice: 0, text, delta, tokens: [], last_token_index: this.#state.next_index - 1 };
  }

  #open(worker: WorkerAddress, instance_id: InstanceId, signal: AbortSignal): AsyncIterable<GenerationEvent> {
    const { workers } = this.#deps;
    const { generation_id, epoch } = this.#state;
    const run = { protocol_version: protocolVersion, generation_id, epoch, instance_id };
    const { model_id: _, ...request } = this.#request;
    if ("inputs" in request) return workers.embed(worker, { ...run, ...request }, signal);
    const { format, stop, ...rest } = request;
    const shape = { stop: [...stop], ...(format === null ? {} : { format }) };
    return workers.generate(worker, { ...run, ...rest, ...shape }, signal);
  }

  /** Frees the slot. Repeated while the worker may still be about to receive the request; never rejects. */
  async #cancelAt(worker: WorkerAddress): Promise<void> {
    const { clock, workers, log } = this.#deps;
    const { generation_id } = this.#state;
    try {
      for (const pause_ms of cancelPauses_ms) {
        if (pause_ms > 0) await clock.sleep(pause_ms);
        if ((await workers.cancel(worker, generation_id)).cancelled) return;
      }
    } catch (error) {
      // The worker's own grace time ends the generation of a reader that is gone.
      log.warn("cancel_failed", { generation_id, message: error instanceof Error ? error.message : null });
    }
  }
}

function hostOf({ worker_id, instance_id }: { worker_id: WorkerId; instance_id: InstanceId }) {
  return { worker_id, instance_id };
}
