/**
 * The closed word lists of the system. The same word stands in HTTP bodies, SQL, C and TypeScript;
 * enumerations elsewhere are built from these tuples, never retyped.
 */

/** Where bytes of a checkpoint can be, nearest to the compute first. */
export const tiers = ["device", "host", "disk", "peer", "origin"] as const;
export type Tier = (typeof tiers)[number];

/** Kinds of compute device; `cpu` stands for the host's processors and memory together. */
export const deviceKinds = ["cpu", "cuda", "hip", "vulkan", "metal"] as const;
export type DeviceKind = (typeof deviceKinds)[number];

/** What a worker may be told to compute on: `auto` is CUDA where it can be used, else the processors. */
export const deviceChoices = ["auto", "cpu", "cuda", "vulkan"] as const;
export type DeviceChoice = (typeof deviceChoices)[number];

/** What a model is for; its file decides. */
export const modelTasks = ["generate", "embed", "rerank"] as const;
export type ModelTask = (typeof modelTasks)[number];

/** How a model makes one vector of a text's tokens; `rank`: scores of a text for a query. */
export const poolings = ["mean", "cls", "last", "rank"] as const;
export type Pooling = (typeof poolings)[number];

/** `lost`: no heartbeat for a lease period. `gone`: said goodbye. */
export const workerStates = ["ready", "draining", "lost", "gone"] as const;
export type WorkerState = (typeof workerStates)[number];

export const instanceStates = [
  "loading",
  "ready",
  "migrating",
  "draining",
  "parked",
  "gone",
  "failed",
] as const;
export type InstanceState = (typeof instanceStates)[number];

/** A deployment: `deleting` accepts no request and ends when its last instance is gone. */
export const modelStates = ["active", "deleting"] as const;
export type ModelState = (typeof modelStates)[number];

/** A checkpoint in one tier of one worker. */
export const placementStates = ["loading", "present", "evicting"] as const;
export type PlacementState = (typeof placementStates)[number];

export const generationStates = ["queued", "running", "finished", "cancelled", "failed"] as const;
export type GenerationState = (typeof generationStates)[number];

/**
 * A stream on its way from one worker to another. `copying`: the destination takes in what the source has so far, round
 * by round. `handing_over`: the epoch is raised, so that the source only hands its last tokens over. `dropped`: the
 * generation ended first; `failed`: it goes on where it was, or by failover.
 */
export const migrationStates = [
  "planned",
  "loading",
  "copying",
  "handing_over",
  "finished",
  "dropped",
  "failed",
] as const;
export type MigrationState = (typeof migrationStates)[number];

/** How a destination gets a stream's KV cache: computed from its tokens, or the source's own bytes. */
export const migrationMethods = ["recompute", "kv_transfer"] as const;
export type MigrationMethod = (typeof migrationMethods)[number];

/** Which public API an answer is shaped for. */
export const answerShapes = ["chat", "text"] as const;
export type AnswerShapeName = (typeof answerShapes)[number];

/** Why a generation ended, in the words of the OpenAI API. */
export const finishReasons = ["stop", "length"] as const;
export type FinishReason = (typeof finishReasons)[number];

export const messageRoles = ["system", "developer", "user", "assistant", "tool"] as const;
export type MessageRole = (typeof messageRoles)[number];

/**
 * What is learned about a cluster. `bandwidth` of a link, for all models or for one, in bytes per millisecond; `build`,
 * until an engine has its model, while bytes travel; `init`, what a start costs after both; `service`, how long a request
 * holds a slot; `prefill` and `decode`, pairs of tokens and milliseconds; `start`, nothing but the errors of whole
 * estimates.
 */
export const estimateQuantities = [
  "bandwidth",
  "init",
  "service",
  "prefill",
  "start",
  "build",
  "decode",
] as const;
export type EstimateQuantity = (typeof estimateQuantities)[number];

/** What an audit event is about. */
export const eventEntities = [
  "worker",
  "model",
  "checkpoint",
  "placement",
  "instance",
  "generation",
  "adapter",
  "migration",
] as const;
export type EventEntity = (typeof eventEntities)[number];

/**
 * How the scheduler chooses. `random` and `locality` are baselines to compare with; `preemptive` stops running work, so
 * it is for simulations only.
 */
export const schedulingPolicies = ["startup-optimal", "locality", "random", "preemptive"] as const;
export type SchedulingPolicy = (typeof schedulingPolicies)[number];
export const livePolicies = ["startup-optimal", "locality", "random"] as const satisfies SchedulingPolicy[];

/** Of requests; who waits with a higher one goes first. */
export const priorities = ["low", "normal", "high"] as const;
export type Priority = (typeof priorities)[number];

/** Legal moves of an instance; every other update is refused by the guarded transition. */
export const instanceMoves = {
  loading: ["ready", "failed", "gone"],
  ready: ["migrating", "draining", "parked", "failed", "gone"],
  migrating: ["ready", "draining", "failed", "gone"],
  draining: ["gone", "failed", "ready", "parked"],
  parked: ["loading", "ready", "draining", "gone", "failed"],
  gone: [],
  failed: ["gone"],
} as const satisfies Record<InstanceState, readonly InstanceState[]>;

export const workerMoves = {
  ready: ["draining", "lost", "gone"],
  draining: ["ready", "lost", "gone"],
  lost: ["ready", "draining", "gone"],
  gone: ["ready", "draining"],
} as const satisfies Record<WorkerState, readonly WorkerState[]>;

export const generationMoves = {
  queued: ["running", "finished", "cancelled", "failed"],
  running: ["finished", "cancelled", "failed"],
  finished: [],
  cancelled: [],
  failed: [],
} as const satisfies Record<GenerationState, readonly GenerationState[]>;

export const migrationMoves = {
  planned: ["loading", "copying", "dropped", "failed"],
  loading: ["copying", "dropped", "failed"],
  copying: ["handing_over", "dropped", "failed"],
  handing_over: ["finished", "dropped", "failed"],
  finished: [],
  dropped: [],
  failed: [],
} as const satisfies Record<MigrationState, readonly MigrationState[]>;

export const modelMoves = {
  active: ["deleting"],
  deleting: ["active"],
} as const satisfies Record<ModelState, readonly ModelState[]>;
