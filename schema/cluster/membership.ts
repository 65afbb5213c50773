/** A worker announces itself and reports what it holds; the gateway answers what it should let go. */
import { z } from "zod";
import { wireError } from "../error.ts";
import { checkpointDigest, instanceId, modelId, workerId } from "../ids.ts";
import { limits } from "../limits.ts";
import { deviceKinds, instanceStates, placementStates, tiers, workerStates } from "../vocab.ts";
import { engineActivity } from "./activity.ts";
import { protocolVersion } from "./protocol.ts";

/** `disk`, or the bus of a device: `device:<device_id>`. */
const linkName = /^(disk|device:.{1,64})$/;

const bytes = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);

export const deviceReport = z.strictObject({
  device_id: z.string().min(1).max(64),
  kind: z.enum(deviceKinds),
  /** Memory the worker gives to models: weights and KV cache. */
  memory_bytes: bytes,
  /** Engines there hold a repacked copy of the weights beside the weights, except of deterministic models. */
  repacks: z.boolean().optional(),
});
export type DeviceReport = z.infer<typeof deviceReport>;

export const placementReport = z.strictObject({
  checkpoint: checkpointDigest,
  tier: z.enum(tiers),
  state: z.enum(placementStates),
  bytes_present: bytes,
});
export type PlacementReport = z.infer<typeof placementReport>;

/** Work that a link of the worker still has before it: loads in progress and those that wait for their turn. */
export const linkReport = z.strictObject({
  link: z.string().regex(linkName, "expected disk or device:<id>"),
  queued_bytes: bytes,
  /** What these bytes take at the link's bandwidth. */
  queued_ms: z.number().min(0),
  /** Of recent loads over this link; null before the first. */
  bandwidth_bytes_per_s: z.number().positive().nullable(),
});
export type LinkReport = z.infer<typeof linkReport>;

/** Why something that lies on the worker's disk cannot be used. */
export const storeProblem = z.strictObject({
  /** null: the store as a whole. */
  checkpoint: checkpointDigest.nullable(),
  error: wireError,
});
export type StoreProblem = z.infer<typeof storeProblem>;

export const instanceReport = z.strictObject({
  instance_id: instanceId,
  model_id: modelId,
  state: z.enum(instanceStates),
  /** Generations in slots, and waiting in the engine's queue. */
  active: z.number().int().min(0),
  queued: z.number().int().min(0),
  /**
   * Instances of equal fingerprint give equal answers, to the last bit, and continue each other's; left out where that
   * is not promised, outside the deterministic mode and before the instance is ready.
   */
  fingerprint: z.string().max(limits.fingerprint_chars).optional(),
  /** Of the last second; left out before the engine has said anything. */
  activity: engineActivity.optional(),
  error: wireError.nullable(),
});
export type InstanceReport = z.infer<typeof instanceReport>;

/** Engine processes in reserve that are ready to be taken: how many for any model, and of which checkpoints. */
export const standbyReport = z.strictObject({
  warm: z.number().int().min(0).max(limits.standby_engines),
  built: z.array(checkpointDigest).max(limits.standby_skeletons),
});
export type StandbyReport = z.infer<typeof standbyReport>;

/** What a worker holds now. `incarnation`, its epoch, is drawn anew at every process start. */
const workerReport = {
  protocol_version: z.literal(protocolVersion),
  worker_id: workerId,
  incarnation: z.string().regex(/^[0-9a-f]{16}$/),
  state: z.enum(workerStates),
  placements: z.array(placementReport).max(100_000),
  instances: z.array(instanceReport).max(10_000),
  links: z.array(linkReport).max(65),
  problems: z.array(storeProblem).max(limits.store_problems),
  /** Left out by a worker without a reserve. */
  standby: standbyReport.optional(),
};

/** POST /cluster/v1/register */
export const registerRequest = z.strictObject({
  ...workerReport,
  url: z.url(),
  version: z.string().max(64),
  devices: z.array(deviceReport).min(1).max(64),
  /**
   * This process was registered before. If another one has registered as the same worker since then, it is the one that
   * counts, and this one is refused with `stale_epoch`: it stops.
   */
  again: z.boolean().optional(),
});
export type RegisterRequest = z.infer<typeof registerRequest>;

export const registerResponse = z.strictObject({ heartbeat_ms: z.number().int().min(1) });
export type RegisterResponse = z.infer<typeof registerResponse>;

/** POST /cluster/v1/heartbeat. `sequence` grows by one: late arrivals are dropped. */
export const heartbeatRequest = z.strictObject({ ...workerReport, sequence: z.number().int().min(0) });
export type HeartbeatRequest = z.infer<typeof heartbeatRequest>;

export const heartbeatResponse = z.strictObject({
  /** False: the gateway does not know this incarnation, register again. */
  known: z.boolean(),
  /** Instances the cluster no longer wants; the worker stops them. */
  release: z.array(instanceId),
  /** Of the reported checkpoints those that a model names: they must not vanish. */
  deployed: z.array(checkpointDigest),
});
export type HeartbeatResponse = z.infer<typeof heartbeatResponse>;
