/**
 * The life of one generation as a reducer: state and input in, next state out, and what is due then. Pure; the driver
 * feeds it and does what it says. dispatch/README.md draws it and says who may write what.
 */
import type { GenerationHop, GenerationPlace, GenerationTimings } from "../../schema/cluster/generate.ts";
import type { LoadTimings } from "../../schema/cluster/instances.ts";
import { SllmError } from "../../schema/error.ts";
import type { GenerationId, InstanceId, ModelId, WorkerId } from "../../schema/ids.ts";
import type { FinishReason } from "../../schema/vocab.ts";

/**
 * `sent`: a worker was told. `running`: its events are read. `detached`: it may run at a place that is known, and nobody
 * here reads it. `claiming`: it runs nowhere, and the epoch has to be won before it is placed again. The last three are
 * ends.
 */
export type Phase =
  | "queued"
  | "loading"
  | "sent"
  | "running"
  | "detached"
  | "claiming"
  | "finished"
  | "cancelled"
  | "failed";

type Place = Pick<GenerationPlace, "epoch" | "worker_id" | "instance_id">;

export interface Generation {
  readonly generation_id: GenerationId;
  readonly model_id: ModelId;
  readonly phase: Phase;
  /** The highest that is known. */
  readonly epoch: number;
  /** Whether this gateway feeds the placement; else it only reads. */
  readonly is_owner: boolean;
  /** Attempts that failed since the last token. */
  readonly failed_attempts: number;
  readonly cold_start: boolean;
  readonly worker_id: WorkerId | null;
  readonly instance_id: InstanceId | null;
  /** Where it goes once its source has handed over; asked first when the source is lost. */
  readonly hand_over: Place | null;
  /** Index of the token that must come next. */
  readonly next_index: number;
  /** Who made which tokens so far. */
  readonly hops: readonly GenerationHop[];
  readonly prompt_tokens: number | null;
  readonly completion_tokens: number | null;
  readonly finish_reason: FinishReason | null;
  readonly error: SllmError | null;
  readonly marks: Marks;
}

/** Moments on the gateway's monotonic clock, and what others measured. */
export interface Marks {
  readonly arrived_ms: number;
  /** First time that a worker was told to load or to generate. */
  readonly told_ms: number | null;
  /** Last time that a worker was told to generate before the first token. */
  readonly sent_ms: number | null;
  readonly first_token_ms: number | null;
  /** Of the load it waited for. */
  readonly load: LoadTimings | null;
  readonly worker: GenerationTimings | null;
}

interface Host {
  readonly worker_id: WorkerId;
  readonly instance_id: InstanceId;
}

export type GenerationInput =
  | { readonly type: "load_awaited"; readonly host: Host; readonly at_ms: number }
  | { readonly type: "sent"; readonly host: Host; readonly at_ms: number; readonly load: LoadTimings | null }
  | { readonly type: "started"; readonly prompt_tokens: number }
  /** Known tokens again change nothing; a gap detaches: what is missing is fetched from where the state stands. */
  | { readonly type: "tokens"; readonly first_index: number; readonly count: number; readonly at_ms: number }
  | {
      readonly type: "done";
      readonly finish_reason: FinishReason;
      readonly prompt_tokens: number;
      readonly completion_tokens: number;
      readonly timings: GenerationTimings;
    }
  /** The connection broke or fell silent; whether the generation goes on there is not known. */
  | { readonly type: "lost" }
  /** Reads at its place again, or what is kept of it. */
  | {
      readonly type: "attached";
      readonly epoch: number;
      readonly instance_id: InstanceId;
      readonly hops: readonly GenerationHop[];
    }
  /** The owner has won the epoch for a planned move: the source is about to hand over. */
  | { readonly type: "hand_over"; readonly to: Place }
  /** The move was given up: the source goes on. */
  | { readonly type: "hand_over_ended" }
  /** A worker's redirect: it goes on there. */
  | { readonly type: "moved"; readonly to: Place }
  /** It does not run where it was; `takes_claim`: others may have continued it, so that the epoch has to be won. */
  | { readonly type: "attempt_failed"; readonly takes_claim: boolean }
  /** With the path of what the owner before has told, where that was taken in. */
  | { readonly type: "claimed"; readonly epoch: number; readonly hops?: readonly GenerationHop[] }
  /** Somebody else owns a higher epoch; `at` is where it runs. */
  | { readonly type: "superseded"; readonly at: Place }
  | { readonly type: "failed"; readonly error: SllmError }
  | { readonly type: "cancelled" };

export function newGeneration(
  generation_id: GenerationId,
  model_id: ModelId,
  arrived_ms: number,
): Generation {
  return {
    generation_id,
    model_id,
    phase: "queued",
    epoch: 1,
    is_owner: true,
    failed_attempts: 0,
    cold_start: false,
    worker_id: null,
    instance_id: null,
    hand_over: null,
    next_index: 0,
    hops: [],
    prompt_tokens: null,
    completion_tokens: null,
    finish_reason: null,
    error: null,
    marks: { arrived_ms, told_ms: null, sent_ms: null, first_token_ms: null, load: null, worker: null },
  };
}

/** Of a generation that began at another gateway and is read here from a token on. */
export function foundGeneration(
  generation_id: GenerationId,
  model_id: ModelId,
  arrived_ms: number,
  known: {
    readonly at: Place | null;
    readonly epoch: number;
    readonly next_index: number;
    readonly hops?: readonly GenerationHop[];
  },
): Generation {
  const fresh = newGeneration(generation_id, model_id, arrived_ms);
  const { at, epoch, next_index, hops = [] } = known;
  const begun = { ...fresh, is_owner: false, epoch, next_index, hops };
  return at === null ? { ...begun, phase: "claiming" } : { ...begun, ...hostOf(at), phase: "detached" };
}

const alive: readonly Phase[] = ["queued", "loading", "sent", "running", "detached", "claiming"];

/** Phases in which an input is legal. Ends take none: whatever comes later is a defect of the driver. */
const legalPhases: Readonly<Record<GenerationInput["type"], readonly Phase[]>> = {
  load_awaited: ["queued", "loading"],
  sent: ["queued", "loading"],
  started: ["sent"],
  tokens: ["running", "claiming"],
  done: ["running"],
  lost: ["sent", "running"],
  attached: ["detached"],
  hand_over: ["running", "detached"],
  hand_over_ended: ["running", "detached"],
  moved: ["sent", "running", "detached", "claiming"],
  attempt_failed: alive,
  claimed: ["claiming", "running"],
  superseded: alive,
  failed: alive,
  cancelled: alive,
};

/** Inputs that come from a worker: out of place they are its fault, otherwise ours. */
const workerInputs: ReadonlySet<GenerationInput["type"]> = new Set(["started", "tokens", "done"]);

/**
 * The next state. A worker that answers out of order throws `generation_lost`; any other input out of place is a defect
 * and throws a plain error.
 */
export function advance(state: Generation, input: GenerationInput): Generation {
  if (!legalPhases[input.type].includes(state.phase)) {
    const text = `"${input.type}" cannot follow the phase "${state.phase}"`;
    if (workerInputs.has(input.type))
      throw new SllmError("generation_lost", `The worker broke the protocol: ${text}.`);
    throw new Error(text);
  }
  switch (input.type) {
    case "load_awaited": {
      const told_ms = state.marks.told_ms ?? input.at_ms;
      return {
        ...state,
        ...input.host,
        phase: "loading",
        cold_start: true,
        marks: { ...state.marks, told_ms },
      };
    }
    case "sent":
      return takeSent(state, input);
    case "started":
      return { ...state, phase: "running", prompt_tokens: input.prompt_tokens };
    case "tokens":
      return takeTokens(state, input.first_index, input.count, input.at_ms);
    case "done": {
      const { finish_reason, prompt_tokens, completion_tokens, timings } = input;
      const marks = { ...state.marks, worker: timings };
      return { ...state, phase: "finished", finish_reason, prompt_tokens, completion_tokens, marks };
    }
    case "attempt_failed": {
      const failed_attempts = state.failed_attempts + 1;
      const again = { ...state, failed_attempts, hand_over: null };
      if (input.takes_claim) return { ...again, phase: "claiming" };
      return { ...again, phase: "queued", epoch: state.epoch + 1 };
    }
    case "failed":
      return { ...state, phase: "failed", error: input.error };
    case "cancelled":
      return { ...state, phase: "cancelled" };
    default:
      return takeMove(state, input);
  }
}

function takeSent(state: Generation, { host, at_ms, load }: GenerationInput & { type: "sent" }): Generation {
  const { marks, next_index, epoch } = state;
  const hops = [
    ...madeBefore(state.hops, next_index),
    { worker_id: host.worker_id, epoch, first_index: next_index },
  ];
  const sent = { ...state, ...host, hops, phase: "sent" as const };
  // What comes after the first token is no part of the way to it.
  if (marks.first_token_ms !== null) return sent;
  const told_ms = marks.told_ms ?? at_ms;
  return { ...sent, marks: { ...marks, told_ms, sent_ms: at_ms, load: load ?? marks.load } };
}

function takeTokens(state: Generation, first_index: number, count: number, at_ms: number): Generation {
  const next_index = first_index + count;
  if (first_index > state.next_index)
    return state.phase === "running" ? { ...state, phase: "detached" } : state;
  if (next_index <= state.next_index) return state;
  const further = { ...state, next_index, failed_attempts: 0 };
  if (state.marks.first_token_ms !== null) return further;
  return { ...further, marks: { ...state.marks, first_token_ms: at_ms } };
}

type MoveInput = Extract<
  GenerationInput,
  { type: "lost" | "attached" | "hand_over" | "hand_over_ended" | "moved" | "claimed" | "superseded" }
>;

/** Inputs that say who owns it and where it runs. An epoch never goes down. */
function takeMove(state: Generation, input: MoveInput): Generation {
  switch (input.type) {
    case "lost": {
      const to = state.hand_over;
      return to === null ? { ...state, phase: "detached" } : { ...goTo(state, to), hand_over: null };
    }
    case "attached": {
      const epoch = Math.max(state.epoch, input.epoch);
      return { ...state, phase: "running", epoch, instance_id: input.instance_id, hops: input.hops };
    }
    case "hand_over":
      return { ...state, hand_over: input.to, epoch: Math.max(state.epoch, input.to.epoch) };
    case "hand_over_ended":
      return { ...state, hand_over: null };
    case "moved":
      // A redirect of long ago leads back to where others have gone on since: it is followed, and refused there.
      return { ...goTo(state, input.to), hand_over: null };
    case "claimed": {
      const phase = state.phase === "claiming" ? "queued" : state.phase;
      return { ...state, phase, is_owner: true, epoch: input.epoch, hops: input.hops ?? state.hops };
    }
    case "superseded":
      return { ...goTo(state, input.at), is_owner: false, hand_over: null };
  }
}

function goTo(state: Generation, at: Place): Generation {
  return { ...state, ...hostOf(at), phase: "detached", epoch: Math.max(state.epoch, at.epoch) };
}

function hostOf({ worker_id, instance_id }: Host): Host {
  return { worker_id, instance_id };
}

/** Hops without those that made nothing. */
function madeBefore(hops: readonly GenerationHop[], next_index: number): GenerationHop[] {
  return hops.filter((hop) => hop.first_index < next_index);
}

export function hasEnded({ phase }: Pick<Generation, "phase">): boolean {
  return phase === "finished" || phase === "cancelled" || phase === "failed";
}
