/**
 * Lives of requests in a simulated cluster: each waits for an instance by the gateway's own queue and placer, holds a slot
 * for as long as its prompt and answer take, and may be moved or preempted meanwhile.
 */
import { SllmError } from "../../schema/error.ts";
import type { InstanceId } from "../../schema/ids.ts";
import type { WaitQueue } from "../admission/wait-queue.ts";
import type { Placement } from "../dispatch/ask.ts";
import type { Placer } from "../dispatch/placer.ts";
import type { LearnedEstimates } from "../placement/estimates/learned-estimates.ts";
import { observeGeneration } from "../placement/estimates/observe.ts";
import type { Fleet } from "../placement/fleet.ts";
import type { InstanceUse } from "../placement/instance-uses.ts";
import type { ModelSpec } from "./cluster-spec.ts";
import type { Outcomes } from "./outcomes.ts";
import type { RequestTrace } from "./trace.ts";
import type { VirtualClock } from "./virtual-clock.ts";
import type { SimulatedWorkers } from "./workers.ts";

/** A request that computes at an instance. */
export interface Running {
  readonly index: number;
  readonly model: ModelSpec;
  readonly input_tokens: number;
  readonly output_tokens: number;
  instance_id: InstanceId;
  use: InstanceUse;
  /** Output tokens when it came to this instance, and when it did. */
  had_tokens: number;
  began_ms: number;
  /** From then until the next token. */
  prefill_ms: number;
  /** Output tokens that the gateway has counted. */
  counted: number;
  cancelEnd: () => void;
}

export interface LivesDeps {
  readonly clock: VirtualClock;
  readonly fleet: Fleet;
  readonly queue: WaitQueue;
  readonly placer: Placer;
  readonly estimates: LearnedEstimates;
  readonly workers: SimulatedWorkers;
  readonly trace: RequestTrace;
  readonly models: readonly ModelSpec[];
  readonly outcomes: Outcomes;
  readonly hold_ms: number;
  /** Called with what should not have been thrown. */
  readonly onDefect: (error: unknown) => void;
}

const never = new AbortController().signal;
const nothing: ReadonlySet<string> = new Set();

export class Lives {
  readonly #deps: LivesDeps;
  readonly #running = new Map<InstanceId, Set<Running>>();
  #ended = 0;

  constructor(deps: LivesDeps) {
    this.#deps = deps;
  }

  get ended(): number {
    return this.#ended;
  }

  /** Nothing computes. */
  get isIdle(): boolean {
    return this.#running.size === 0;
  }

  /** Those at an instance. */
  at(instance_id: InstanceId): ReadonlySet<Running> {
    return this.#running.get(instance_id) ?? noneRunning;
  }

  /** The request comes. */
  arrive(index: number): void {
    this.#live(index, this.#deps.clock.wallMs(), 0);
  }

  /** From a place in the queue to an instance; again after a preemption, with the tokens so far. */
  #live(index: number, since_ms: number, had_tokens: number): void {
    const { clock, outcomes, onDefect } = this.#deps;
    this.#place(index, since_ms).then(
      (placement) => {
        outcomes.add("startup_ms", index, clock.wallMs() - since_ms);
        this.#serve(index, placement, had_tokens);
      },
      (error: unknown) => {
        if (!(error instanceof SllmError)) return onDefect(error);
        outcomes.add("startup_ms", index, clock.wallMs() - since_ms);
        const isLate = error.code === "deadline_exceeded" || error.code === "model_loading";
        this.#end(index, isLate ? "late" : "refused");
      },
    );
  }

  async #place(index: number, since_ms: number): Promise<Placement> {
    const { clock, queue, placer, trace, models, hold_ms, outcomes, workers } = this.#deps;
    const model_id = modelAt(models, trace, index).model_id;
    const arrived_ms = trace.arrival_ms[index] ?? 0;
    // Of all its waits together: two that stop each other would wait for ever.
    const deadline_ms = since_ms + Math.max(0, hold_ms - (outcomes.startup_ms[index] ?? 0));
    const generation_id = `${index}.${outcomes.preemptions[index] ?? 0}`;
    const waiting = {
      generation_id,
      model_id,
      tenant: "",
      priority: "normal",
      arrived_ms,
      deadline_ms,
    } as const;
    const ticket = queue.enter(waiting);
    const asked = placer.place({
      ...{ model_id, ticket, arrived_ms, adapter: null, signal: never, failed_attempts: 0 },
      deadline: { deadline_ms, is_own: false },
      avoid: { workers: nothing, instances: nothing },
      onLoadAwaited: ({ instance_id }) => {
        outcomes.tier[index] = 1 + workers.tierOf(instance_id);
      },
    });
    try {
      for (;;) {
        const step = await asked.next();
        if (step.done === true) return step.value;
      }
    } finally {
      ticket.leave(clock.wallMs());
    }
  }

  #serve(index: number, { instance, use }: Placement, had_tokens: number): void {
    const { clock, trace, models, outcomes } = this.#deps;
    const model = modelAt(models, trace, index);
    const input_tokens = trace.input_tokens[index] ?? 0;
    const output_tokens = Math.max(1, trace.output_tokens[index] ?? 1);
    const prefill_ms = prefillMs(model, input_tokens + had_tokens);
    const running: Running = {
      ...{ index, model, input_tokens, output_tokens, had_tokens, use, prefill_ms },
      ...{ instance_id: instance.instance_id, began_ms: clock.wallMs(), counted: 0, cancelEnd: () => {} },
    };
    if (Number.isNaN(outcomes.ttft_ms[index])) {
      outcomes.ttft_ms[index] = clock.wallMs() - (trace.arrival_ms[index] ?? 0) + prefill_ms;
    } else outcomes.add("pause_ms", index, prefill_ms);
    this.begin(running);
  }

  /** Goes on at its instance: after what `prefill_ms` says, until its last token. */
  begin(running: Running): void {
    const { clock } = this.#deps;
    const { model, output_tokens, had_tokens, prefill_ms, use, input_tokens } = running;
    running.began_ms = clock.wallMs();
    running.counted = 0;
    use.begun(input_tokens, Math.max(output_tokens, model.context_tokens - input_tokens));
    this.#count(running);
    // The step that ends the prompt makes a token, too.
    const left_ms = prefill_ms + Math.max(0, output_tokens - had_tokens - 1) * model.token_ms;
    running.cancelEnd = clock.at(running.began_ms + left_ms, () => this.#finish(running));
    const others = this.#running.get(running.instance_id);
    if (others === undefined) this.#running.set(running.instance_id, new Set([running]));
    else others.add(running);
  }

  /** Computes no more where it was; its slot there is free. */
  leave(running: Running): void {
    running.had_tokens = this.tokensOf(running);
    running.cancelEnd();
    const others = this.#running.get(running.instance_id);
    others?.delete(running);
    if (others?.size === 0) this.#running.delete(running.instance_id);
    running.use.release();
  }

  /** Everything at the instance stops and waits for another place. */
  interrupt(instance_id: InstanceId): void {
    const { outcomes, clock } = this.#deps;
    for (const running of [...this.at(instance_id)]) {
      this.leave(running);
      outcomes.bump("preemptions", running.index);
      this.#live(running.index, clock.wallMs(), running.had_tokens);
    }
  }

  tokensOf({ had_tokens, began_ms, prefill_ms, model, output_tokens }: Running): number {
    const passed_ms = this.#deps.clock.wallMs() - began_ms - prefill_ms;
    if (passed_ms < 0) return had_tokens;
    return Math.min(output_tokens, had_tokens + 1 + Math.floor(passed_ms / model.token_ms));
  }

  /** Tells the gateway how far answers are, as their streams would. */
  countTokens(): void {
    for (const all of this.#running.values()) for (const running of all) this.#count(running);
  }

  #count(running: Running): void {
    const tokens = this.tokensOf(running);
    if (tokens > running.counted) running.use.count(tokens - running.counted);
    running.counted = tokens;
  }

  #finish(running: Running): void {
    const { clock, fleet, estimates } = this.#deps;
    const { index, model, input_tokens, output_tokens, had_tokens, prefill_ms, began_ms } = running;
    const instance = fleet.instance(running.instance_id);
    const kind = instance === null ? null : fleet.deviceKind(instance);
    this.leave(running);
    // Only whole answers tell how long one takes.
    if (kind !== null && had_tokens === 0) {
      const decode_ms = clock.wallMs() - began_ms - prefill_ms;
      const timings = { queue_ms: 0, prefill_ms, decode_ms };
      observeGeneration(estimates, model.model_id, kind, input_tokens, output_tokens, timings);
    }
    this.#end(index, "served");
  }

  #end(index: number, state: "served" | "late" | "refused"): void {
    this.#deps.outcomes.end(index, state, this.#deps.clock.wallMs());
    this.#ended += 1;
  }
}

const noneRunning: ReadonlySet<Running> = new Set();

export function prefillMs({ prefill_base_ms, prefill_ms_per_token }: ModelSpec, tokens: number): number {
  return prefill_base_ms + prefill_ms_per_token * tokens;
}

function modelAt(models: readonly ModelSpec[], trace: RequestTrace, index: number): ModelSpec {
  const model = models[trace.model[index] ?? -1];
  if (model === undefined) throw new Error(`request ${index} names no model of the cluster`);
  return model;
}
