/**
 * The private channel between a worker and one engine process: one JSON object per line on the engine's standard
 * input and output. The engine ends when its input ends; its standard error is its log.
 */
import { z } from "zod";
import { wireError } from "../error.ts";
import { limits } from "../limits.ts";
import { finishReasons } from "../vocab.ts";
import { engineBeat } from "./activity.ts";
import { answerFormat, messageDelta, promptInput } from "./conversation.ts";
import { embedFields, encodedVector } from "./embed.ts";
import {
  cached_tokens,
  generationTimings,
  outputToken,
  resumedOutput,
  samplingParams,
  startedFields,
} from "./generate.ts";
import { kvSettings } from "./instances.ts";
import { kvDigest } from "./kv.ts";

/** Which engine runs: a model through libllama, or the deterministic echo engine for tests. */
export const engineKinds = ["llama", "echo"] as const;

/** Numbers requests on this channel only. */
const requestNumber = z.number().int().min(1).max(Number.MAX_SAFE_INTEGER);

/** Path of the host copy of the weights, e.g. /proc/<pid>/fd/<n>; see sllm.h, host copies. */
const weightsPath = z.string();

/** Numbers the adapters of one engine, from 1; a number is never used again. */
const adapterNumber = z.number().int().min(1).max(0xffff_fffe);

const kvPath = z.string();
/** Tokens of prompt and output, prompt first: from one up to another. */
const kvRange = { from: z.number().int().min(0), to: z.number().int().min(1) };

/** What decides a model's skeleton: everything but its weights. */
const skeletonFields = {
  engine: z.enum(engineKinds),
  /** Path of header.gguf; unused by the echo engine. */
  header_path: z.string(),
  weights_bytes: z.number().int().min(0),
  context_tokens: z.number().int().min(16).max(limits.context_tokens),
  slots: z.number().int().min(1).max(limits.slots),
  threads: z.number().int().min(1),
  /** Tokens of a step for prompts while any answer is being generated; `limits.prefill_tokens` if left out. */
  prefill_tokens: z.number().int().min(1).max(limits.batch_tokens).optional(),
  /** Weights on processors in the layout that suits them, in memory of the engine's own; not with `deterministic`. */
  repacked: z.boolean().optional(),
  /** Requests that may wait beyond the slots; `limits.engine_queue` if left out. */
  queue: z.number().int().min(1).max(limits.engine_queue).optional(),
  ...kvSettings,
  /** Discrete devices by the engine library's names, perhaps with shares (see sllm.h); the processors when absent. */
  devices: z.string().max(limits.device_list_chars).optional(),
};

export const engineCommand = z.discriminatedUnion("op", [
  /** Bound how much memory of its own the process may take from now on; the system refuses it more. No answer. */
  z.strictObject({ op: z.literal("limit"), private_bytes: z.number().int().min(1) }),
  /** Load ahead what no model decides; `warm` or `failed` answers. */
  z.strictObject({ op: z.literal("warm"), engine: z.enum(engineKinds) }),
  /** Build the one model of this process without weights; `built` or `failed` answers. */
  z.strictObject({ op: z.literal("build"), ...skeletonFields }),
  /** Bring weights to a skeleton or a parked engine, also while they arrive; `ready` or `failed` answers. */
  z.strictObject({ op: z.literal("attach"), weights_path: weightsPath }),
  /** `build` and `attach` in one; `ready` or `failed` answers. */
  z.strictObject({ op: z.literal("load"), ...skeletonFields, weights_path: weightsPath }),
  /**
   * Let the KV cache go, and the host copy unless it is kept mapped; no request may be unfinished. `parked` or `failed`
   * answers. A parked engine lets a kept copy go when it is parked again without keeping it.
   */
  z.strictObject({ op: z.literal("park"), keep_weights: z.boolean() }),
  z.strictObject({
    op: z.literal("generate"),
    request: requestNumber,
    prompt: promptInput,
    sampling: samplingParams,
    stop: z.array(z.string()),
    max_tokens: z.number().int().min(1).nullable(),
    ignore_eos: z.boolean(),
    format: answerFormat.optional(),
    /** Of an adapter that was added; left out: the model as it is. */
    adapter: adapterNumber.optional(),
    resume: resumedOutput.optional(),
    tell_prompt: z.boolean().optional(),
    /** Draws no token until an `extend` lets it go; `held` answers, `started` comes when it goes. */
    held: z.boolean().optional(),
    /** With `held`: nothing is computed before `load_kv` has brought the rows of its first tokens. */
    awaits_kv: z.boolean().optional(),
  }),
  /** Write rows of a request's KV cache to a file that exists; `kv` answers, unless it has ended. */
  z.strictObject({ op: z.literal("save_kv"), request: requestNumber, path: kvPath, ...kvRange }),
  /** Take such rows in, in order, up to token `all`; `kv` answers, unless it has ended. */
  z.strictObject({
    op: z.literal("load_kv"),
    request: requestNumber,
    path: kvPath,
    ...kvRange,
    all: z.number().int().min(1),
    digest: kvDigest,
  }),
  /** Hold a request from the next step on; `held` answers, unless it has ended. */
  z.strictObject({ op: z.literal("hold"), request: requestNumber }),
  /**
   * More output for a request that came held; without tokens also for one that was held later. `held` answers when all
   * but the last token are computed. With `go` it is complete, and the request goes on.
   */
  z.strictObject({
    op: z.literal("extend"),
    request: requestNumber,
    tokens: z.array(z.number().int().min(0)).max(limits.context_tokens),
    go: z.boolean(),
  }),
  /** On an engine whose model embeds or ranks; `vectors` are in the order of the inputs. */
  z.strictObject({ op: z.literal("embed"), request: requestNumber, ...embedFields }),
  /**
   * Bring a LoRA adapter to an engine with weights, while it goes on; `adapter_added` or `adapter_refused` answers. Its
   * weights are copied: the host copy, which must be whole, may go afterwards. A park lets all adapters go.
   */
  z.strictObject({
    op: z.literal("add_adapter"),
    adapter: adapterNumber,
    header_path: z.string(),
    weights_path: weightsPath,
    weights_bytes: z.number().int().min(1),
  }),
  /** Let an adapter go that no unfinished request names. No answer. */
  z.strictObject({ op: z.literal("remove_adapter"), adapter: adapterNumber }),
  z.strictObject({ op: z.literal("cancel"), request: requestNumber }),
  z.strictObject({ op: z.literal("exit") }),
]);
export type EngineCommand = z.infer<typeof engineCommand>;

export const engineMessage = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("hello"), pid: z.number().int(), abi_version: z.number().int() }),
  /** Every `engine_beat_ms`, as long as the process answers. Without activity: no model, or none that takes requests. */
  z.strictObject({ type: z.literal("beat"), activity: engineBeat.nullable() }),
  z.strictObject({ type: z.literal("warm") }),
  z.strictObject({ type: z.literal("built"), model_build_ms: z.number() }),
  /** Requests are taken from now on. */
  z.strictObject({
    type: z.literal("ready"),
    model_build_ms: z.number(),
    weights_wait_ms: z.number(),
    /** Engines of one checkpoint with equal fingerprints give equal answers; left out where that is not promised. */
    fingerprint: z.string().optional(),
    /** Bytes of its KV cache for each token, and which engines of one checkpoint take each other's rows. */
    kv: z.strictObject({ token_bytes: z.number().int().min(1), fingerprint: z.string() }).optional(),
    /** The way of the weights to discrete devices; `wait_ms` of it went by without bytes to send. */
    upload: z.strictObject({ bytes: z.number(), upload_ms: z.number(), wait_ms: z.number() }).optional(),
  }),
  z.strictObject({ type: z.literal("parked"), weights_kept: z.boolean() }),
  z.strictObject({ type: z.literal("adapter_added"), adapter: adapterNumber }),
  z.strictObject({ type: z.literal("adapter_refused"), adapter: adapterNumber, error: wireError }),
  /** The load failed or the engine cannot go on; the process ends afterwards. */
  z.strictObject({ type: z.literal("failed"), error: wireError }),
  z.strictObject({ type: z.literal("started"), request: requestNumber, ...startedFields }),
  /** It draws no tokens; so many of its output are computed. */
  z.strictObject({
    type: z.literal("held"),
    request: requestNumber,
    completion_tokens: z.number().int().min(0),
    cached_tokens,
  }),
  /** Rows up to a token are saved, with the digest of the file, or loaded; else why not. */
  z.strictObject({
    type: z.literal("kv"),
    request: requestNumber,
    to: z.number().int().min(0),
    digest: kvDigest.optional(),
    error: wireError.optional(),
  }),
  z.strictObject({
    type: z.literal("tokens"),
    request: requestNumber,
    first_index: z.number().int().min(0),
    tokens: z.array(outputToken).min(1),
    delta: messageDelta.optional(),
  }),
  z.strictObject({
    type: z.literal("vectors"),
    request: requestNumber,
    first_index: z.number().int().min(0),
    vectors: z.array(encodedVector).min(1),
  }),
  z.strictObject({
    type: z.literal("done"),
    request: requestNumber,
    finish_reason: z.enum(finishReasons),
    text: z.string(),
    delta: messageDelta.optional(),
    prompt_tokens: z.number().int(),
    cached_tokens,
    completion_tokens: z.number().int(),
    timings: generationTimings,
  }),
  /** The request ended without a result: refused, failed or cancelled (code `cancelled`). */
  z.strictObject({ type: z.literal("error"), request: requestNumber, error: wireError }),
]);
export type EngineMessage = z.infer<typeof engineMessage>;
